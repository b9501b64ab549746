/**
 * What this page follows: one feed for all of it.
 *
 * When that changes, another feed is opened, and the first is closed as soon as the other is live. A stream goes on where
 * it was. Of a channel that is in both, a message of that moment may be missing, which is told.
 */

const SOON = 50; // ms

export class Following {
  #gateway;
  #on;
  #wanted = new Map(); // by path: { kind, name }
  #refused = new Map(); // by path, of these: why
  #positions = new Map(); // of streams, where they go on
  #current = null; // { feed, paths, added, channels, repeated }
  #next = null;
  #oneByOne = false; // since it is to be found out which are refused
  #due = false;

  /** `on`: onEvent, onGap, onState, onRefused, onReplaced and onChange. */
  constructor(gateway, on) {
    this.#gateway = gateway;
    this.#on = on;
  }

  /** `idle`, or the state of the feed. */
  get state() {
    return (this.#current ?? this.#next)?.feed.state ?? "idle";
  }

  get topics() {
    return [...this.#wanted.values()];
  }

  has(kind, name) {
    return this.#wanted.has(path(kind, name));
  }

  isRefused(kind, name) {
    return this.#refused.has(path(kind, name));
  }

  add(kind, name) {
    this.#refused.delete(path(kind, name));
    this.#wanted.set(path(kind, name), { kind, name });
    this.#change();
  }

  remove(kind, name) {
    this.#wanted.delete(path(kind, name));
    this.#refused.delete(path(kind, name));
    if (kind === "stream") this.#positions.delete(name);
    this.#change();
  }

  /** Follow all of it anew, as somebody else. */
  restart(gateway) {
    this.#gateway = gateway;
    this.#refused.clear();
    this.#remember();
    for (const one of [this.#current, this.#next]) one?.feed.close();
    this.#current = this.#next = null;
    this.#change();
  }

  #change() {
    this.#on.onChange();
    if (this.#due) return;
    this.#due = true; // several changes at once make one feed
    queueMicrotask(() => {
      this.#due = false;
      this.#settle();
    });
  }

  #settle() {
    if (this.#next !== null) {
      if (this.#next.feed.state === "connecting") return; // it is looked at again when that is decided
      this.#next.feed.close();
      this.#next = null;
    }
    if (this.#current?.feed.state === "live" && Object.values(this.#current.feed.positions).includes("end")) {
      setTimeout(() => this.#settle(), SOON); // where its streams begin is about to be told
      return;
    }
    const wanted = [...this.#wanted.keys()].filter((path) => !this.#refused.has(path));
    const old = this.#current?.paths ?? new Set();
    const added = wanted.filter((path) => !old.has(path));
    if (added.length === 0 && wanted.length === old.size) return;
    const left = this.#oneByOne ? added.slice(1) : [];
    const paths = new Set(wanted.filter((path) => !left.includes(path)));
    if (paths.size > 0) this.#open(paths, added.slice(0, added.length - left.length));
    else {
      this.#current?.feed.close();
      this.#current = null;
      this.#on.onState("idle", {});
    }
    if (left.length === 0) this.#oneByOne = false;
  }

  #open(paths, added) {
    this.#remember();
    const topics = [...paths].map((path) => this.#wanted.get(path));
    const channels = topics.filter(({ kind }) => kind === "channel").map(({ name }) => name);
    const streams = Object.fromEntries(
      topics.filter(({ kind }) => kind === "stream").map(({ name }) => [name, this.#positions.get(name) ?? "end"]),
    );
    // Entries that are shown already, and come once more as this feed begins before them.
    const repeated = new Set(this.#current?.repeated);
    const one = { paths, added, channels, repeated };
    this.#next = one;
    one.feed = this.#gateway.follow({ channels, streams }, {
      onEvent: (event) => one === this.#current && this.#deliver(event),
      onGap: (gap) => one === this.#current && this.#on.onGap(gap),
      onState: (state, detail) => this.#onState(one, state, detail),
      onError: (error) => this.#onError(one, error),
    });
  }

  #onState(one, state, detail) {
    if (state === "live" && one === this.#next) {
      const kept = one.channels.filter((name) => this.#current?.paths.has(path("channel", name)));
      this.#current?.feed.close();
      this.#current = one;
      this.#next = null;
      if (kept.length) this.#on.onReplaced(kept);
      queueMicrotask(() => this.#settle());
    }
    if (state !== "closed" && (one === this.#current || this.#current === null)) this.#on.onState(state, detail);
    if (state === "waiting" && one === this.#next) queueMicrotask(() => one === this.#next && this.#wantsOther(one) && this.#settle());
  }

  #wantsOther(one) {
    const wanted = [...this.#wanted.keys()].filter((path) => !this.#refused.has(path));
    return wanted.length !== one.paths.size || wanted.some((path) => !one.paths.has(path));
  }

  /** It has ended: trying again is of no use. */
  #onError(one, error) {
    if (one === this.#current) {
      this.#remember();
      this.#current = null;
      this.#refuse([...one.paths], error);
    } else if (one === this.#next) {
      this.#next = null;
      if (one.added.length > 1) this.#oneByOne = true;
      else this.#refuse(one.added.length ? one.added : [...one.paths], error);
    }
    this.#settle();
  }

  #refuse(paths, error) {
    const topics = paths.filter((path) => this.#wanted.has(path)).map((path) => this.#wanted.get(path));
    for (const path of paths) this.#refused.set(path, error);
    if (topics.length) this.#on.onRefused(topics, error);
    if (this.#current === null && this.#next === null) this.#on.onState("idle", {});
  }

  #deliver(event) {
    if (event.stream !== undefined) {
      const entry = `${event.id} ${event.stream}`;
      if (this.#current.repeated.delete(entry)) return;
      this.#next?.repeated.add(entry);
    }
    if (this.#wanted.has(path(event.channel === undefined ? "stream" : "channel", event.channel ?? event.stream)))
      this.#on.onEvent(event);
  }

  #remember() {
    for (const [name, position] of Object.entries(this.#current?.feed.positions ?? {})) this.#positions.set(name, position);
  }
}

function path(kind, name) {
  return `${kind}s/${name}`;
}
