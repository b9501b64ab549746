/**
 * A client of the gateway (`pgpubsub serve`) for browsers and for Node.js from version 20 on.
 *
 * ```js
 * import { Gateway } from "./pgpubsub.js";
 *
 * const gateway = new Gateway("http://localhost:8008/", { token: async () => (await fetch("/token")).text() });
 * for await (const event of gateway.follow({ channels: ["news"], streams: { orders: "beginning" } })) {
 *   console.log(event.type, event.payload);
 * }
 * ```
 */

/** What was sent on a channel. */
export interface ChannelMessage {
  readonly type: "message";
  readonly channel: string;
  readonly stream?: undefined;
  readonly payload: string;
  /** What was sent beside the payload, if there was something. */
  readonly headers?: Record<string, unknown>;
}

/** An entry of a stream. */
export interface StreamEntry {
  readonly type: "message";
  readonly stream: string;
  readonly channel?: undefined;
  /** Text, or what was stored as bytes. */
  readonly payload: string | Uint8Array;
  /** Its number: each is different, and a publisher's own ones rise. */
  readonly id: number;
  /** Where to go on behind this entry: `follow({ streams: { NAME: position } })`. */
  readonly position: string;
  readonly key: string | null;
  readonly headers: Record<string, unknown> | null;
  /** When it was appended, as ISO 8601 has it, with microseconds. */
  readonly at: string;
}

/** From here on something may be missing. */
export interface Gap {
  readonly type: "gap";
  /** Of which channel, or else of which stream. */
  readonly channel?: string;
  readonly stream?: string;
  readonly payload?: undefined;
  /** Why, in a word: `connection_lost` if this client was away, `overflow` if it was too slow, and others. */
  readonly reason: string;
  /** When all was well last, as ISO 8601 has it. */
  readonly since: string;
  /** How many are missing; null: nobody knows. */
  readonly count: number | null;
}

export type Message = ChannelMessage | StreamEntry;
export type FeedEvent = Message | Gap;

/**
 * `connecting`; `live`: what is sent now arrives; `waiting`: the connection is lost, and the next attempt is to come;
 * `closed`: for good.
 */
export type FeedState = "connecting" | "live" | "waiting" | "closed";

/** Where to begin: `beginning`, `end` (what is appended from now on), or a position. */
export type Start = "beginning" | "end" | (string & {});

/** What to follow. All of it arrives over one connection. */
export interface Topics {
  readonly channels?: readonly string[];
  /** Where to begin in each stream; a list of names stands for their ends. */
  readonly streams?: Readonly<Record<string, Start>> | readonly string[];
}

/** What is wrong, while a feed waits or when it has closed. */
export interface StateDetail {
  /** Why the connection was lost, or the feed has closed, unless `close` did that. */
  readonly error?: unknown;
  /** Milliseconds until the next attempt, while it waits. */
  readonly delay?: number;
}

export interface FollowOptions {
  /**
   * Called with each event, one after the other: if it returns a promise, the next event waits for that. If it throws,
   * the feed ends with that error. Without it, the feed is to be iterated.
   */
  onEvent?: (event: FeedEvent, feed: Feed) => unknown;
  /** Called with gaps in place of `onEvent`. (Who iterates gets them among the events.) */
  onGap?: (gap: Gap, feed: Feed) => unknown;
  /** Called whenever `state` has changed. */
  onState?: (state: FeedState, detail: StateDetail, feed: Feed) => void;
  /**
   * Called when the feed has ended because of an error, mostly a `GatewayError`. Without it, an iteration throws the
   * error; and if nobody iterates, it is an uncaught one.
   */
  onError?: (error: unknown, feed: Feed) => void;
  /** Closes the feed when it is aborted. */
  signal?: AbortSignal;
  /**
   * Events that wait to be taken by who iterates, at most; 10,000 by default. When there are as many, nothing is read
   * any more, and the gateway treats the client as a slow one: streams go on later, channels show a gap.
   */
  buffer?: number;
}

/** What is followed. It is iterated if there is no `onEvent`; leaving the loop closes it. */
export class Feed implements AsyncIterableIterator<FeedEvent> {
  private constructor();
  /** How it stands. */
  readonly state: FeedState;
  /** Where each stream is to be gone on with behind the events that were handed out: `follow({ streams: positions })`. */
  readonly positions: Readonly<Record<string, Start>>;
  /** End it. Events that were not taken by then are dropped. May be repeated. */
  close(): void;
  /**
   * The next event, when there is one. Done when the feed is closed.
   *
   * @throws {GatewayError} The gateway refused it.
   */
  next(): Promise<IteratorResult<FeedEvent, undefined>>;
  /** Close it. */
  return(): Promise<IteratorResult<FeedEvent, undefined>>;
  [Symbol.asyncIterator](): this;
}

/** Delays. Times are in milliseconds. */
export interface Timing {
  /** The longest delay before the first attempt to connect again, 250; it doubles with each that fails. */
  firstDelay?: number;
  /** What it doubles up to, 30,000. What the server asks for comes on top. */
  longestDelay?: number;
  /**
   * After how long without a byte a connection is given up, 45,000: three times the interval of the gateway's comments.
   * Also what an answer to `notify` or `append` is waited for.
   */
  silence?: number;
  /** Gives numbers from 0 up to 1, `Math.random` by default: which part of the delay is really waited. */
  random?: () => number;
}

export interface GatewayOptions {
  /**
   * A token, or what gives one: asked for each connection anew, and when the gateway says 401. If it gives the same
   * again then, that is final; if it fails, that is repeated.
   */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  /** In place of the global `fetch`. */
  fetch?: typeof globalThis.fetch;
  timing?: Timing;
}

export interface NotifyOptions {
  headers?: Record<string, unknown> | null;
  signal?: AbortSignal;
}

export interface AppendOptions {
  key?: string | null;
  headers?: Record<string, unknown> | null;
  /** Two appends with the same one are stored once. By default a random one, so that repeating is safe. */
  idempotencyKey?: string;
  signal?: AbortSignal;
}

export class Gateway {
  /** @param url Where it is. Relative ones are relative to the page. */
  constructor(url: string | URL, options?: GatewayOptions);

  /**
   * Follow channels and streams, over one connection.
   *
   * It connects again whenever that is lost, and then streams go on behind the last entry, and channels with a gap.
   * It ends upon what does not become better by itself: 400, 403, 404, or 401 with the same token.
   */
  follow(topics: Topics, options?: FollowOptions): Feed;

  /**
   * Send on a channel. It is sent when this returns. It is not repeated, as it could be sent twice.
   *
   * @throws {GatewayError} It was not sent; or, if the error is `uncertain`, perhaps it was.
   */
  notify(channel: string, text: string, options?: NotifyOptions): Promise<void>;

  /**
   * Append to a stream, and return the id. It is stored when this returns. What may become better by itself is tried
   * six times, and stored once.
   *
   * @throws {GatewayError} It was not stored; or, if the error is `uncertain`, perhaps it was.
   */
  append(stream: string, payload: string | Uint8Array, options?: AppendOptions): Promise<number>;
}

/** What the gateway refused, or why it could not be reached. */
export class GatewayError extends Error {
  constructor(message: string, options?: Partial<Omit<GatewayError, keyof Error>> & { cause?: unknown });
  /** Of HTTP, or 0. */
  readonly status: number;
  /** A word: one of the gateway's codes or reasons; `unreachable`, `token` (there is none), `no-gateway` or `http-500`. */
  readonly code: string;
  /** Milliseconds after which to come again, if the server has said so. */
  readonly retryAfter: number | undefined;
  /** Whether what was to be sent may have been sent. */
  readonly uncertain: boolean;
  /** Whether it may become better by itself. */
  readonly temporary: boolean;
}

/** How long to wait before the next attempt: a random part of a delay that doubles. */
export class Backoff {
  constructor(timing?: Timing);
  /** Milliseconds; `told` are those that the server asked for. */
  next(told?: number): number;
  reset(): void;
}

/** A parser of server-sent events, as the HTML standard has them. */
export class EventParser {
  /** Milliseconds after which to connect again, if the server has said so. */
  retry: number | undefined;
  /** What is complete with these bytes. A block that has an id alone has no `data`. */
  push(bytes: Uint8Array): { type: string; data: string | undefined; id: string | undefined }[];
}
