/** What the gateway tells about itself every second (`GET overview`), for as long as the page is open. */

import { Backoff, EventParser, GatewayError } from "./pgpubsub.js";

const SILENCE = 10_000; // ms without a word, after which it is asked anew
const HIDDEN = 60_000; // ms: the timers of a page that nobody sees are late

export class Watching {
  #url;
  #on;
  #token;
  #attempt = null;
  #backoff = new Backoff({ firstDelay: 500, longestDelay: 10_000 });
  #timer = undefined;

  /** `on`: onOverview(overview), onLost(error) and onRefused(error), after which it does not try any more. */
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
    addEventListener("online", () => this.#attempt === null && this.start(this.#token));
  }

  /** Watch, or watch as somebody else. */
  start(token) {
    this.#token = token;
    this.stop();
    const attempt = new AbortController();
    this.#attempt = attempt;
    this.#watch(attempt);
  }

  stop() {
    clearTimeout(this.#timer);
    const attempt = this.#attempt;
    this.#attempt = null;
    attempt?.abort();
  }

  async #watch(attempt) {
    let error;
    try {
      await this.#read(attempt);
      error = new GatewayError("the connection has ended");
    } catch (failure) {
      error = failure;
    }
    if (attempt !== this.#attempt) return; // stopped
    clearTimeout(this.#timer);
    if (error instanceof GatewayError && !error.temporary) {
      this.#attempt = null;
      this.#on.onRefused(error);
      return;
    }
    this.#on.onLost(error);
    this.#timer = setTimeout(() => this.start(this.#token), this.#backoff.next(error.retryAfter));
  }

  async #read(attempt) {
    this.#beware(attempt);
    const headers = { Accept: "text/event-stream", ...(this.#token && { Authorization: `Bearer ${this.#token}` }) };
    const response = await fetch(this.#url, { headers, cache: "no-store", signal: attempt.signal });
    if (!response.ok) {
      const told = await response.json().catch(() => ({}));
      throw new GatewayError(String(told.detail ?? `the answer is ${response.status}`), {
        status: response.status,
        code: String(told.code ?? ""),
      });
    }
    const parser = new EventParser();
    const reader = response.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      this.#beware(attempt);
      for (const { type, data } of parser.push(value)) {
        if (type === "closing") throw new GatewayError(JSON.parse(data).detail, { retryAfter: parser.retry });
        if (type !== "overview") continue;
        this.#backoff.reset();
        this.#on.onOverview(JSON.parse(data));
      }
    }
  }

  #beware(attempt) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => attempt.abort(new GatewayError("nothing came")), document.hidden ? HIDDEN : SILENCE);
  }
}
