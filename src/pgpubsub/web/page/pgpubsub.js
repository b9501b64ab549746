/**
 * A client of the gateway (`pgpubsub serve`) for browsers and for Node.js from version 20 on: it follows channels and
 * streams over one connection, and sends.
 *
 * It comes again by itself when the connection is lost, and goes on where it was: every entry of a stream is delivered
 * once, and what may be missing of a channel is told as a gap. It ends when trying again is of no use. Types, and what
 * each option means, are in pgpubsub.d.ts. It needs nothing but `fetch`.
 */

const TIMING = { firstDelay: 250, longestDelay: 30_000, silence: 45_000, random: Math.random };
const STEADY = 10_000; // ms that a connection has to last before the next delay is short again
const GRACE = 5_000; // ms for bytes that came while this program stood still
const LONGEST_TOLD = 3_600_000; // ms: what a server asks for beyond that is not believed, nor can timers do it
const QUEUE = 10_000; // events that wait to be taken
const TRIES = 6; // how often an entry is sent before that has failed
const NOT_SENT = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN"]; // as Node.js says that there was no connection

/** What the gateway refused, or why it could not be reached. */
export class GatewayError extends Error {
  constructor(message, { status = 0, code = "unreachable", retryAfter, uncertain = false, temporary, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "GatewayError";
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
    this.uncertain = uncertain;
    this.temporary = temporary ?? (status === 0 || status >= 500 || [408, 425, 429].includes(status));
  }
}

/** Delays with full jitter (random from 0 on), so that clients that were cut off together do not come back together. */
export class Backoff {
  #timing;
  #failures = 0;

  constructor(timing = {}) {
    this.#timing = { ...TIMING, ...timing };
  }

  next(told = 0) {
    const { firstDelay, longestDelay, random } = this.#timing;
    const most = Math.min(longestDelay, firstDelay * 2 ** this.#failures++);
    return Math.min(told, LONGEST_TOLD) + random() * most;
  }

  reset() {
    this.#failures = 0;
  }
}

/** Takes server-sent events apart, as the HTML standard has it (section 9.2.6), however they were cut into pieces. */
export class EventParser {
  /** Milliseconds after which to connect again, if the server has said so. */
  retry = undefined;
  #decoder = new TextDecoder(); // drops a byte order mark
  #rest = "";
  #afterReturn = false; // a line feed that comes next belongs to the carriage return before it
  #type = "";
  #data = [];
  #id = undefined;
  #told = false; // whether the block has an id, which counts even if it has no data

  /** What is complete with these bytes: `{ type, data, id }`. A block with an id alone has no `data`. */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    const afterReturn = this.#afterReturn;
    this.#afterReturn = text.endsWith("\r");
    if (afterReturn && text.startsWith("\n")) text = text.slice(1);
    const lines = text.split(/\r\n|\n|\r/);
    lines[0] = this.#rest + lines[0];
    this.#rest = lines.pop();
    const blocks = [];
    for (const line of lines) {
      if (line !== "") this.#field(line);
      else if (this.#data.length || this.#told) blocks.push(this.#block());
      else this.#type = "";
    }
    return blocks;
  }

  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
    else if (name === "id" && !value.includes("\0")) {
      this.#id = value;
      this.#told = true;
    }
  }

  #block() {
    const data = this.#data.length ? this.#data.join("\n") : undefined;
    const block = { type: this.#type || "message", data, id: this.#id };
    this.#type = "";
    this.#data = [];
    this.#told = false;
    return block;
  }
}

/** Calls `onSilence` when nothing came in time, unless it was this program that stood still. */
class Watchdog {
  #silence;
  #onSilence;
  #timer;
  #since; // when something came last

  constructor(silence, onSilence) {
    this.#silence = silence;
    this.#onSilence = onSilence;
  }

  start() {
    this.#since = Date.now();
    this.#arm(this.#silence);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** The page was away, and so may be the connection. */
  hurry() {
    if (this.#timer !== undefined && Date.now() - this.#since > this.#silence / 2) this.#arm(GRACE, true);
  }

  #arm(delay, last = false) {
    this.stop();
    const due = Date.now() + delay;
    // A frozen page's timers are late, and come before the bytes that have been waiting as long.
    const onTime = () => (last || Date.now() < due + 1000 ? this.#onSilence() : this.#arm(GRACE, true));
    this.#timer = setTimeout(onTime, delay);
  }
}

/** Requests with a token. Whatever is no success is a GatewayError. */
class Requests {
  constructor(url, { token, fetch, timing } = {}) {
    this.base = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    if (!this.base.pathname.endsWith("/")) this.base.pathname += "/";
    this.timing = { ...TIMING, ...timing };
    this.source = token;
    this.fetch = fetch ?? ((...request) => globalThis.fetch(...request));
    this.token = undefined; // the last one that was got
  }

  /** A response. `anew`: with a token that is asked for now. */
  async open(path, init, anew) {
    const token = !anew && this.token !== undefined ? this.token : await this.#ask(init.signal);
    const response = await this.#send(path, init, token);
    if (response.ok) return response;
    const refusal = await problem(response);
    if (refusal.status !== 401 || typeof this.source !== "function") throw refusal;
    const another = await this.#ask(init.signal);
    if (another === token) throw refusal;
    const second = await this.#send(path, init, another);
    if (second.ok) return second;
    const error = await problem(second);
    if (error.status === 401) error.temporary = true; // the tokens change, so one may be good again
    throw error;
  }

  async #ask(signal) {
    const asking = async () => (typeof this.source === "function" ? this.source() : this.source);
    const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    try {
      this.token = await Promise.race([asking(), aborted]);
    } catch (cause) {
      const text = `there is no token: ${cause?.message ?? cause}`;
      throw new GatewayError(text, { code: "token", temporary: true, cause });
    }
    return this.token;
  }

  #send(path, init, token) {
    const headers = token ? { ...init.headers, Authorization: `Bearer ${token}` } : init.headers;
    return reaching(this.fetch(new URL(path, this.base), { ...init, headers, cache: "no-store" }), init.signal);
  }
}

/** What `promise` brings, or a GatewayError: the connection has failed. */
async function reaching(promise, signal) {
  try {
    return await promise;
  } catch (error) {
    const cause = signal?.aborted ? signal.reason : error;
    const code = cause?.cause?.code;
    const text = `the gateway cannot be reached: ${[cause?.message, code].filter(Boolean).join(", ")}`;
    throw new GatewayError(text, { uncertain: !NOT_SENT.includes(code), cause });
  }
}

/** What is wrong, from a response that is no success (RFC 9457). */
async function problem(response) {
  const status = response.status;
  let told = {};
  try {
    told = JSON.parse(await response.text()) ?? {};
  } catch {} // of somebody in between, who does not speak JSON
  const code = typeof told.code === "string" ? told.code : "";
  const after = response.headers.get("retry-after");
  const wait = after === null ? NaN : /^\d+$/.test(after) ? after * 1000 : Date.parse(after) - Date.now();
  const uncertain = status === 504 || (status >= 500 && code === "");
  const options = { status, code: code || `http-${status}`, retryAfter: wait >= 0 ? wait : undefined, uncertain };
  return new GatewayError(typeof told.detail === "string" ? told.detail : `the answer is ${status}`, options);
}

/** Something that is followed: with callbacks, or iterated. */
export class Feed {
  state = "connecting";
  positions;
  #requests;
  #path;
  #streams; // names, in the order of their positions in an id
  #callbacks;
  #buffer;
  #signal;
  #lastId = ""; // of what was received, which may be ahead of `positions`
  #queue = [];
  #takers = []; // who waits for something in the queue
  #failure;
  #ended = new AbortController();
  #watchdog;
  #goOn = () => {}; // ends what is being waited for: a delay, or room in the queue
  #close = () => this.close();
  #wake = ({ type }) => {
    if (type === "visibilitychange" && document.hidden) return;
    if (this.state === "waiting") this.#goOn();
    this.#watchdog?.hurry();
  };

  constructor(requests, { channels = [], streams = {} }, { signal, buffer = QUEUE, ...callbacks } = {}) {
    const starts = Array.isArray(streams) ? streams.map((name) => [name, "end"]) : Object.entries(streams);
    const parameters = channels.map((name) => ["channel", name]);
    for (const [name, start] of starts) parameters.push(["stream", name], ["after", start ?? "end"]);
    this.#requests = requests;
    this.#path = `events${query(parameters)}`;
    this.#streams = starts.map(([name]) => name);
    this.#callbacks = callbacks;
    this.#buffer = buffer;
    this.#signal = signal;
    this.positions = Object.fromEntries(starts);
    this.#listen("addEventListener");
    if (signal?.aborted) this.close();
    else queueMicrotask(() => this.#run());
  }

  close() {
    this.#queue = [];
    this.#end();
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async next() {
    if (this.#callbacks.onEvent) throw new TypeError("this feed has onEvent: it is not iterated");
    if (this.#queue.length) {
      const [event, id] = this.#queue.shift();
      this.#note(id);
      if (this.state === "live") this.#goOn();
      return { value: event, done: false };
    }
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure.error;
    if (this.state === "closed") return { value: undefined, done: true };
    return new Promise((resolve) => this.#takers.push(resolve)).then(() => this.next());
  }

  async return() {
    this.close();
    return { value: undefined, done: true };
  }

  async #run() {
    const backoff = new Backoff(this.#requests.timing);
    try {
      while (this.state !== "closed") {
        this.#enter("connecting");
        const error = await this.#connection(backoff);
        if (this.state === "closed") return;
        if (!error.temporary) throw error;
        const delay = backoff.next(error.retryAfter);
        this.#enter("waiting", { error, delay });
        await this.#pause(delay);
      }
    } catch (error) {
      this.#end({ error });
    }
  }

  /** One connection, until it ends. Returns why. */
  async #connection(backoff) {
    const attempt = new AbortController();
    const { silence } = this.#requests.timing;
    const onEnd = () => attempt.abort();
    this.#ended.signal.addEventListener("abort", onEnd);
    this.#watchdog = new Watchdog(silence, () => attempt.abort(new Error(`nothing came for ${silence} ms`)));
    try {
      this.#watchdog.start();
      const headers = { Accept: "text/event-stream", ...(this.#lastId && { "Last-Event-ID": this.#lastId }) };
      const response = await this.#requests.open(this.#path, { headers, signal: attempt.signal }, true);
      if (!response.headers.get("content-type")?.startsWith("text/event-stream"))
        return new GatewayError("what answers is no gateway", { status: response.status, code: "no-gateway" });
      if (this.state === "closed") return;
      this.#enter("live");
      return await this.#read(response.body.getReader(), attempt.signal, backoff);
    } catch (error) {
      if (error instanceof GatewayError) return error;
      throw error;
    } finally {
      this.#watchdog.stop();
      this.#ended.signal.removeEventListener("abort", onEnd);
      attempt.abort();
    }
  }

  async #read(reader, signal, backoff) {
    const parser = new EventParser();
    const steadyAt = Date.now() + STEADY;
    for (;;) {
      this.#watchdog.start();
      const { value, done } = await reaching(reader.read(), signal);
      this.#watchdog.stop();
      if (done) return new GatewayError("the connection has ended", { retryAfter: parser.retry });
      if (Date.now() > steadyAt) backoff.reset(); // the gateway's comments, at least, come for as long as it lives
      for (const { type, data, id } of parser.push(value)) {
        this.#lastId = id ?? this.#lastId;
        if (data === undefined && !this.#queue.length) this.#note(id);
        if (data === undefined || !["message", "gap", "closing"].includes(type)) continue;
        if (type === "closing") return closing(JSON.parse(data), parser.retry);
        if (type === "message") backoff.reset();
        await this.#deliver(decoded(JSON.parse(data)), id);
        if (this.state === "closed") return;
      }
    }
  }

  async #deliver(event, id) {
    const { onEvent, onGap } = this.#callbacks;
    if (onEvent) {
      this.#note(id);
      try {
        await (event.type === "gap" && onGap ? onGap(event, this) : onEvent(event, this));
      } catch (error) {
        this.#end({ error });
      }
      return;
    }
    this.#queue.push([event, id]);
    this.#takers.shift()?.();
    // While nothing is read, the network holds the sender up, and the gateway decides what becomes of the rest.
    while (this.#queue.length >= this.#buffer && this.state !== "closed") await this.#pause();
  }

  /** Until there is a reason to go on, or for `delay` milliseconds. */
  async #pause(delay) {
    let timer;
    await new Promise((resolve) => {
      this.#goOn = resolve;
      if (delay !== undefined) timer = setTimeout(resolve, delay);
    });
    clearTimeout(timer);
  }

  /** Where to go on behind what was handed out. */
  #note(id) {
    const places = (id ?? "").split(".").slice(-this.#streams.length || Infinity);
    if (places.length === this.#streams.length && places[0])
      this.positions = Object.fromEntries(this.#streams.map((name, index) => [name, places[index]]));
  }

  #enter(state, detail = {}) {
    this.state = state;
    this.#callbacks.onState?.(state, detail, this);
  }

  #end(failure) {
    if (this.state === "closed") return;
    this.state = "closed";
    this.#failure = failure;
    this.#listen("removeEventListener");
    this.#ended.abort();
    this.#goOn();
    for (const take of this.#takers.splice(0)) take();
    this.#enter("closed", { error: failure?.error });
    if (failure === undefined) return;
    const { onEvent, onError } = this.#callbacks;
    if (onError) onError(failure.error, this);
    else if (onEvent) queueMicrotask(() => Promise.reject(failure.error)); // nobody else hears of it
  }

  #listen(action) {
    this.#signal?.[action]("abort", this.#close);
    for (const event of ["online", "pageshow"]) globalThis[action]?.(event, this.#wake);
    for (const event of ["resume", "visibilitychange"]) globalThis.document?.[action](event, this.#wake);
  }
}

/** Why the server ends a connection. Another token is asked for before the next one. */
function closing({ reason, detail, retry }, standard) {
  return new GatewayError(detail, { code: reason, retryAfter: retry ?? standard, temporary: true });
}

function decoded({ base64, ...event }) {
  if (base64 === undefined) return event;
  return { ...event, payload: Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)) };
}

/** A gateway. */
export class Gateway {
  #requests;

  constructor(url, options) {
    this.#requests = new Requests(url, options);
  }

  follow(topics, options) {
    return new Feed(this.#requests, topics, options);
  }

  async notify(channel, text, { headers, signal } = {}) {
    if (typeof text !== "string") throw new TypeError("a channel carries text: bytes go to a stream");
    await this.#post("channels", channel, text, {}, signal, query([["headers", headers && JSON.stringify(headers)]]));
  }

  async append(stream, payload, { key, headers, idempotencyKey = randomKey(), signal } = {}) {
    const asked = query([["key", key], ["headers", headers && JSON.stringify(headers)]]);
    const backoff = new Backoff(this.#requests.timing);
    let uncertain = false;
    for (let left = TRIES - 1; ; left--) {
      try {
        const own = { "Idempotency-Key": idempotencyKey };
        return JSON.parse(await this.#post("streams", stream, payload, own, signal, asked)).id;
      } catch (error) {
        if (!(error instanceof GatewayError)) throw error;
        uncertain = error.uncertain ||= uncertain; // an earlier attempt may have stored it
        // What the database refuses (502) it will refuse again; another 502 is of something in between.
        if (!left || !error.temporary || error.code === "refused" || error.status === 429) throw error;
        await delayed(backoff.next(error.retryAfter), signal);
      }
    }
  }

  async #post(kind, name, body, headers, signal, asked = "") {
    if (name === "." || name === "..") throw new TypeError(`${JSON.stringify(name)} cannot be part of a URL`);
    if (typeof body === "string" && body.isWellFormed?.() === false)
      throw new TypeError("this is no Unicode text: half of a surrogate pair is missing");
    const type = typeof body === "string" ? "text/plain;charset=UTF-8" : "application/octet-stream";
    const timeout = AbortSignal.timeout(this.#requests.timing.silence);
    const init = { method: "POST", body, headers: { ...headers, "Content-Type": type } };
    init.signal = signal ? AbortSignal.any([signal, timeout]) : timeout;
    try {
      const response = await this.#requests.open(`${kind}/${encodeURIComponent(name)}${asked}`, init, false);
      return await reaching(response.text(), init.signal);
    } catch (error) {
      throw signal?.aborted ? signal.reason : error;
    }
  }
}

function query(parameters) {
  const given = parameters.filter(([, value]) => value !== undefined && value !== null);
  const text = given.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  return text && `?${text}`;
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function delayed(delay, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(done, delay);
    function done() {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      signal?.aborted ? reject(signal.reason) : resolve();
    }
    signal?.addEventListener("abort", done);
  });
}
