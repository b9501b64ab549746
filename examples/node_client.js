// A client of pgpubsub's channels in JavaScript: plain payloads, and long ones in frames, see docs/frames.md.
// It needs the package pg (npm install pg), and connects where PGHOST, PGPORT, PGUSER and PGDATABASE say.
//
//     node node_client.js send CHANNEL < text
//     node node_client.js listen CHANNEL COUNT    prints each payload as a line of JSON, null for one that is lost

const { randomBytes } = require("crypto");
const { readFileSync } = require("fs");
const { Client } = require("pg");

const HEADER = /^pgpubsub\/([1-9][0-9]{0,3}) ([0-9a-f]{16}) (?:([1-9][0-9]{0,8})\/([1-9][0-9]{0,8}) )?/;
const LIMIT = 16 * 1024 * 1024;
const PARTS = 1000 + LIMIT / 256;

function pack(text) {
  const data = Buffer.from(text);
  if (data.length <= 7999 && !text.startsWith("pgpubsub/")) return [text];
  const size = data.length === text.length ? 7936 : 3968; // ASCII or not
  const parts = [];
  for (let start = 0, end; start < data.length; start = end) {
    end = Math.min(start + size, data.length);
    while (end < data.length && (data[end] & 0xc0) === 0x80) end--; // not within a character
    parts.push(data.toString("utf8", start, end));
  }
  const name = randomBytes(8).toString("hex");
  return parts.map((part, i) => `pgpubsub/1 ${name} ${i + 1}/${parts.length} ${part}`);
}

function send(client, channel, text) {
  return client.query("SELECT pg_notify($1, part) FROM unnest($2::text[]) AS part", [channel, pack(text)]);
}

class Joiner {
  message = null; // whose end has not come

  // What there is now that this notification has come: payloads, and null for each message that is lost.
  take({ processId, channel, payload }) {
    const [header, version, name, i, n] = HEADER.exec(payload) ?? [];
    const [index, count] = version === "1" ? [Number(i ?? 0), Number(n ?? 0)] : [0, 1]; // of other versions nothing is known
    const isChunk = header !== undefined && (version !== "1" || (index >= 1 && index <= count));
    const key = isChunk ? `${processId} ${name} ${channel}` : null;
    const ready = [];
    if (this.message && (key !== this.message.key || index === 1)) {
      if (!this.message.lost) ready.push(null);
      this.message = null;
    }
    if (!isChunk) return [...ready, payload];
    const message = (this.message ??= { key, count, index: 0, size: 0, parts: [], lost: false });
    message.size += Buffer.byteLength(payload) - header.length;
    const fits = message.size <= LIMIT && count <= PARTS;
    if (!message.lost && (index !== message.index + 1 || count !== message.count || !fits)) {
      Object.assign(message, { lost: true, parts: [] });
      ready.push(null);
    }
    if (!message.lost) message.parts.push(payload.slice(header.length));
    message.index = index;
    if (index === count) {
      if (!message.lost) ready.push(message.parts.join(""));
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

async function main([command, channel, count]) {
  const client = new Client();
  await client.connect();
  if (command === "listen") return listen(client, channel, Number(count));
  await send(client, channel, readFileSync(0, "utf8"));
  return client.end();
}

if (require.main === module) main(process.argv.slice(2));
module.exports = { pack, Joiner };
