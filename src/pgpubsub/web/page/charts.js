/** A small chart of the last minute: one number a second, drawn as SVG, with words for who does not see it. */

import { element, number, say } from "./words.js";

const SECONDS = 60;
const HEIGHT = 26;
const SVG = "http://www.w3.org/2000/svg";

export class Chart {
  #values = [];
  #gaps = []; // whether there was a gap in that second
  #gap = false;
  #words;
  #line = shape("path", "line");
  #area = shape("path", "area");
  #marks = shape("path", "gap");
  #picture = shape("svg", "chart");
  #peak = element("span", "peak");
  element = element("div");

  /** `words` says it all, from what is now and the most there was. */
  constructor(words) {
    this.#words = words;
    const ground = shape("path", "ground");
    ground.setAttribute("d", `M0 ${HEIGHT}H${2 * SECONDS}`);
    this.#picture.setAttribute("viewBox", `0 0 ${2 * SECONDS} ${HEIGHT}`);
    this.#picture.setAttribute("preserveAspectRatio", "none");
    this.#picture.setAttribute("role", "img");
    this.#picture.append(ground, this.#area, this.#line, this.#marks);
    this.#peak.setAttribute("aria-hidden", "true"); // the words have it
    this.element.append(this.#picture, this.#peak);
    this.#draw();
  }

  /** There was a gap just now. */
  markGap() {
    this.#gap = true;
  }

  /** The number of another second; null: nobody knows. */
  push(value) {
    this.#values.push(value);
    this.#gaps.push(this.#gap);
    this.#gap = false;
    if (this.#values.length > SECONDS) {
      this.#values.shift();
      this.#gaps.shift();
    }
    this.#draw();
  }

  /** The mean of the last seconds; null: nobody knows. */
  recent(seconds) {
    const known = this.#values.slice(-seconds).filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  }

  #draw() {
    const known = this.#values.filter((value) => value !== null);
    const peak = Math.max(1, ...known);
    const from = SECONDS - this.#values.length;
    const place = (index) => 2 * (from + index) + 1;
    let line = "", area = "", begun = null;
    this.#values.forEach((value, index) => {
      if (value === null) {
        if (begun !== null) area += `V${HEIGHT}H${begun}Z`;
        begun = null;
        return;
      }
      const x = place(index);
      const y = (HEIGHT - 1 - (value / peak) * (HEIGHT - 3)).toFixed(1);
      line += begun === null ? `M${x} ${y}` : `L${x} ${y}`;
      area += begun === null ? `M${x} ${HEIGHT}V${y}` : `L${x} ${y}`;
      begun ??= x;
    });
    if (begun !== null) area += `V${HEIGHT}H${begun}Z`;
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
    this.#marks.setAttribute("d", this.#gaps.map((gap, index) => (gap ? `M${place(index)} 0V${HEIGHT}` : "")).join(""));
    const gaps = this.#gaps.filter(Boolean).length;
    const now = known.length ? this.#words(number(this.recent(5) ?? 0), number(Math.max(...known))) : "not known yet";
    say(this.#peak, known.length ? number(Math.max(...known)) : "");
    this.#picture.setAttribute("aria-label", gaps ? `${now}; ${gaps === 1 ? "a gap" : `${gaps} gaps`}` : now);
  }
}

function shape(name, kind) {
  const element = document.createElementNS(SVG, name);
  element.setAttribute("class", kind);
  return element;
}
