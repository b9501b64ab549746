/** Numbers and times as people read them. */

const WHOLE = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** One decimal where it says something. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 100_000) return SHORT.format(value);
  if (value >= 10 || Number.isInteger(value)) return WHOLE.format(Math.round(value));
  return value < 0.05 ? (value > 0 ? "<0.1" : "0") : value.toFixed(1);
}

/** A time of day. */
export function clock(time = new Date()) {
  const at = new Date(time);
  return Number.isNaN(at.getTime()) ? "?" : CLOCK.format(at);
}

/** How long: from milliseconds to days. */
export function span(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  for (const [unit, size] of [["d", 86_400], ["h", 3_600], ["min", 60]])
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}

/** How long ago, in whole seconds. */
export function ago(iso) {
  if (iso === null) return "none";
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  return Number.isFinite(seconds) ? (seconds < 2 ? "now" : `${span(seconds)} ago`) : "–";
}

/** `1 channel`, `2 channels`. */
export function several(count, what) {
  return `${WHOLE.format(count)} ${what}${count === 1 ? "" : "s"}`;
}

/** `a, b and 3 more`. */
export function listed(names, most = 3) {
  const some = names.slice(0, most).map((name) => short(name, 60));
  return names.length > most ? `${some.join(", ")} and ${names.length - most} more` : some.join(", ");
}

/** The beginning of a text, on one line. */
export function short(text, most) {
  const line = text.slice(0, most + 1).replace(/\s+/g, " ");
  return line.length > most ? `${line.slice(0, most)}…` : line;
}

/** An element with a class and text. Nothing is ever parsed as HTML: names and payloads are anybody's. */
export function element(name, kind = "", text = undefined) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Change the text of an element, unless it is that already. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
