// A client of pgpubsub's channels in JavaScript: plain payloads, and long ones in frames, see docs/frames.md.
// It needs the package pg (npm install pg), and connects where PGHOST, PGPORT, PGUSER and PGDATABASE say.
//
//     node node_client.js send CHANNEL [HEADERS] < text
//     node node_client.js listen CHANNEL COUNT    prints each payload as a line of JSON, null for one that is lost,
//                                                 {"payload": ..., "headers": ...} for one with headers

const { randomBytes } = require("crypto");
const { readFileSync } = require("fs");
const { Client } = require("pg");

const HEADER = /^pgpubsub\/([1-9][0-9]{0,3}) ([0-9a-f]{16}) (?:([1-9][0-9]{0,8})\/([1-9][0-9]{0,8}) )?/;
const LIMIT = 16 * 1024 * 1024;
const PARTS = 1000 + LIMIT / 256;
const HEADERS = 16384;

function pack(text, headers = {}) {
  const version = Object.keys(headers).length ? 2 : 1;
  const whole = version === 2 ? `${JSON.stringify(headers)}\n${text}` : text;
  const data = Buffer.from(whole);
  if (version === 1 && data.length <= 7999 && !text.startsWith("pgpubsub/")) return [text];
  const size = data.length === whole.length ? 7936 : 3968; // ASCII or not
  const parts = [];
  for (let start = 0, end; start < data.length; start = end) {
    end = Math.min(start + size, data.length);
    while (end < data.length && (data[end] & 0xc0) === 0x80) end--; // not within a character
    parts.push(data.toString("utf8", start, end));
  }
  const name = randomBytes(8).toString("hex");
  return parts.map((part, i) => `pgpubsub/${version} ${name} ${i + 1}/${parts.length} ${part}`);
}

function send(client, channel, text, headers) {
  return client.query("SELECT pg_notify($1, part) FROM unnest($2::text[]) AS part", [channel, pack(text, headers)]);
}

// For JSON.parse, which makes Infinity of 1e999: that could not be written again.
function finite(_, value) {
  if (value === Infinity || value === -Infinity) throw new RangeError("a number is too large");
  return value;
}

// What a message is, given all its parts: its payload, with its headers if it has some, or null if it cannot be read.
function unpack(version, whole) {
  if (version === "1") return whole;
  const end = whole.indexOf("\n");
  if (end < 0 || Buffer.byteLength(whole.slice(0, end)) > HEADERS) return null;
  try {
    const headers = JSON.parse(whole.slice(0, end), finite);
    if (headers === null || typeof headers !== "object" || Array.isArray(headers)) return null;
    const payload = whole.slice(end + 1);
    return Object.keys(headers).length ? { payload, headers } : payload;
  } catch {
    return null;
  }
}

class Joiner {
  message = null; // whose end has not come

  // What there is now that this notification has come: payloads, and null for each message that is lost.
  take({ processId, channel, payload }) {
    const [header, version, name, i, n] = HEADER.exec(payload) ?? [];
    const isKnown = version === "1" || version === "2";
    const [index, count] = isKnown ? [Number(i ?? 0), Number(n ?? 0)] : [0, 1]; // of other versions nothing is known
    const isChunk = header !== undefined && (!isKnown || (index >= 1 && index <= count));
    const key = isChunk ? `${processId} ${name} ${channel}` : null;
    const ready = [];
    if (this.message && (key !== this.message.key || index === 1)) {
      if (!this.message.lost) ready.push(null);
      this.message = null;
    }
    if (!isChunk) return [...ready, payload];
    const message = (this.message ??= { key, version, count, index: 0, size: 0, parts: [], lost: false });
    message.size += Buffer.byteLength(payload) - header.length;
    const fits = message.size <= LIMIT && count <= PARTS;
    const goesOn = index === message.index + 1 && count === message.count && version === message.version;
    if (!message.lost && !(goesOn && fits)) {
      Object.assign(message, { lost: true, parts: [] });
      ready.push(null);
    }
    if (!message.lost) message.parts.push(payload.slice(header.length));
    message.index = index;
    if (index === count) {
      if (!message.lost) ready.push(unpack(version, message.parts.join("")));
      this.message = null;
    }
    return ready;
  }
}

async function listen(client, channel, left, joiner = new Joiner()) {
  client.on("notification", (notification) => {
    for (const payload of joiner.take(notification)) {
      if (left-- > 0) console.log(JSON.stringify(payload));
    }
    if (left <= 0) client.end();
  });
  await client.query(`LISTEN ${client.escapeIdentifier(channel)}`);
  console.log("listening");
}

async function main([command, channel, argument]) {
  const client = new Client();
  await client.connect();
  if (command === "listen") return listen(client, channel, Number(argument));
  await send(client, channel, readFileSync(0, "utf8"), JSON.parse(argument ?? "{}"));
  return client.end();
}

if (require.main === module) main(process.argv.slice(2));
module.exports = { pack, Joiner };
