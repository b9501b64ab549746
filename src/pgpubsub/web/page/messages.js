/** The latest messages, the newest first, and the log of what has happened. Both are bounded. */

import { clock, element, number, several, short } from "./words.js";

const KEPT = 200; // messages
const LOGGED = 100;
const LONG = 400; // characters, from which on a payload is folded
const LONGEST = 50_000; // characters that are shown of it when it is not

export class Messages {
  #list = document.getElementById("messages");
  #empty = document.getElementById("messages-empty");
  #count = document.getElementById("messages-count");
  #button = document.getElementById("pause");
  #waiting = []; // the latest that are not shown yet
  #held = 0; // how many have come since they are held
  #total = 0;

  constructor() {
    this.#button.addEventListener("click", () => {
      this.#button.setAttribute("aria-pressed", String(!this.paused));
      this.#held = this.paused ? this.#waiting.length : 0;
      this.render();
    });
    document.getElementById("clear").addEventListener("click", () => {
      this.#waiting = [];
      this.#held = this.#total = 0;
      this.#list.replaceChildren();
      this.#empty.hidden = false;
      this.render();
    });
  }

  get paused() {
    return this.#button.getAttribute("aria-pressed") === "true";
  }

  add(message) {
    this.#total++;
    if (this.paused) this.#held++;
    this.#waiting.push({ ...message, came: Date.now() });
    if (this.#waiting.length > KEPT) this.#waiting.shift();
  }

  /** Show what has come, a few times a second however much that is. */
  render() {
    const held = this.#held ? `, ${number(this.#held)} held back` : "";
    const text = this.#total ? several(this.#total, "message") + held : "";
    if (this.#count.textContent !== text) this.#count.textContent = text;
    if (this.paused || !this.#waiting.length) return;
    const made = this.#waiting.map(item).reverse();
    this.#waiting = [];
    this.#list.prepend(...made);
    while (this.#list.childElementCount > KEPT) this.#list.lastElementChild.remove();
    this.#empty.hidden = true;
  }
}

function item({ channel, stream, key, at, came, id, payload }) {
  const made = element("li", channel === undefined ? "stream" : "channel");
  const about = element("div", "about");
  const name = element("bdi", "name", short(channel ?? stream, 200));
  about.append(name);
  if (id !== undefined) about.append(element("span", "", `#${id}`));
  if (key !== undefined && key !== null) {
    const told = element("span", "", "key ");
    told.append(element("bdi", "", short(key, 100)));
    about.append(told);
  }
  const time = element("time", "", clock(at ?? came));
  about.append(time);
  made.append(about, shown(payload));
  return made;
}

/** A payload as text, folded if it is long. */
function shown(payload) {
  if (payload.length === 0) return element("pre", "empty-payload", "empty");
  const binary = typeof payload !== "string";
  const text = binary ? hexadecimal(payload) : payload;
  if (text.length <= LONG) return preformatted(text);
  const folded = element("details");
  const size = binary ? several(payload.length, "byte") : several(payload.length, "character");
  const summary = element("summary");
  const start = element("bdi", "", short(text, 200));
  summary.append(start, ` (${size})`);
  folded.append(summary);
  folded.addEventListener("toggle", () => folded.open && folded.append(preformatted(text.slice(0, LONGEST))), { once: true });
  return folded;
}

function preformatted(text) {
  const made = element("pre", "", text);
  made.dir = "auto"; // and what it has of directions stays within
  return made;
}

function hexadecimal(bytes) {
  return Array.from(bytes.subarray(0, LONGEST / 3), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

const KINDS = { gap: "Gap", lost: "Lost", back: "Back", refused: "Refused", note: "Note" };

/** What has happened: screen readers are told of each entry. */
export class Log {
  #list = document.getElementById("log");
  #empty = document.getElementById("log-empty");

  add(kind, text) {
    const made = element("li", kind === "refused" ? "lost" : kind);
    const time = element("time", "", clock());
    made.append(time, element("span", "kind", KINDS[kind]), element("bdi", "", text));
    this.#list.prepend(made);
    while (this.#list.childElementCount > LOGGED) this.#list.lastElementChild.remove();
    this.#empty.hidden = true;
  }
}
