/** The tables: rows that stay where they are while their numbers change, so that nothing is lost that has the focus. */

import { Chart } from "./charts.js";
import { ago, element, number, say, span } from "./words.js";

const RECENT = 5; // seconds of which a rate is the mean

/** Rows by key, in the order of their names. */
class Rows {
  #table;
  #region; // in which it is scrolled
  #make;
  #body = element("tbody");
  #rows = new Map();

  constructor(table, make) {
    this.#table = table;
    this.#region = table.parentElement;
    this.#make = make;
    table.append(this.#body);
  }

  get(key) {
    return this.#rows.get(key);
  }

  values() {
    return this.#rows.values();
  }

  /** Have just these rows: `[key, what is known]`. */
  show(known) {
    const keys = new Set(known.map(([key]) => key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      if (row.element.contains(document.activeElement)) this.#region.focus();
      row.element.remove();
      this.#rows.delete(key);
    }
    let before = null;
    for (const [key, its] of [...known].sort(([one], [other]) => (one < other ? 1 : -1))) {
      let row = this.#rows.get(key);
      if (row === undefined) {
        row = this.#make(its);
        this.#rows.set(key, row);
        this.#body.insertBefore(row.element, before);
      }
      row.update(its);
      before = row.element;
    }
    this.#table.hidden = known.length === 0;
    this.#region.tabIndex = this.#region.scrollWidth > this.#region.clientWidth ? 0 : -1; // for who scrolls by keyboard
  }
}

class Row {
  element = element("tr");

  constructor(...names) {
    const head = element("th");
    head.scope = "row";
    names.forEach((name, index) => {
      if (index) head.append(element("span", "of", " of "));
      head.append(element("bdi", index ? "name of" : "name", name));
    });
    head.title = names.join(" of ").slice(0, 200);
    this.element.append(head);
  }

  cell(kind = "number") {
    const cell = element("td", kind);
    this.element.append(cell);
    return cell;
  }

  chart(words) {
    const chart = new Chart(words);
    this.cell("").append(chart.element);
    return chart;
  }
}

/** A channel or a stream: its rate, and a button to follow it. */
class TopicRow extends Row {
  came = 0; // to this page since the last second
  rate = null; // as the gateway has told it
  followed = false;
  #button = element("button");

  constructor(kind, name, onToggle) {
    super(name);
    this.kind = kind;
    this.name = name;
    const words = (now, most) => `${name.slice(0, 100)}: ${now} a second now, ${most} at most in the last minute`;
    this.rates = this.chart(words);
    this.rateCell = this.cell();
    this.extra = this.cell();
    this.followers = this.cell();
    this.#button.type = "button";
    this.#button.addEventListener("click", () => onToggle(kind, name));
    this.cell("").append(this.#button);
  }

  update({ followers, followed, refused }) {
    this.followed = followed;
    say(this.followers, refused ? "refused" : number(followers));
    this.followers.classList.toggle("bad", refused);
    const text = followed ? "Unfollow" : "Follow";
    if (this.#button.textContent !== text) {
      this.#button.textContent = text;
      this.#button.setAttribute("aria-label", `${text} ${this.kind} ${this.name.slice(0, 100)}`);
    }
  }

  tick(seconds, { arriving, told }) {
    const counted = arriving ? this.came / seconds : null;
    for (let left = seconds; left; left--) this.rates.push(this.followed ? counted : told ? this.rate : null);
    this.came = 0;
    say(this.rateCell, number(this.rates.recent(RECENT)));
  }
}

class ChannelRow extends TopicRow {
  #total = 0; // to this page, for when another process answers that does not have the channel

  update(its) {
    super.update(its);
    say(this.extra, number(its.received ?? this.#total));
  }

  tick(seconds, known) {
    this.#total += this.came;
    super.tick(seconds, known);
  }
}

class StreamRow extends TopicRow {
  #last = null;

  update(its) {
    super.update(its);
    this.rate = its.rate;
    this.#last = its.last;
  }

  tick(seconds, known) {
    super.tick(seconds, known);
    say(this.extra, ago(this.#last));
    this.extra.classList.toggle("none", this.#last === null);
  }
}

class GroupRow extends Row {
  #its = null;

  constructor({ name, stream }) {
    super(name, stream);
    const words = (now, most) => `${name.slice(0, 100)}: ${now} entries behind, ${most} at most in the last minute`;
    this.lags = this.chart(words);
    this.lag = this.cell();
    this.oldest = this.cell();
    this.members = this.cell();
    this.failed = this.cell();
    this.dead = this.cell();
  }

  update(its) {
    this.#its = its;
    say(this.lag, number(its.lag) + (its.at_least ? " or more" : ""));
    say(this.oldest, span(its.oldest));
    this.oldest.classList.toggle("none", its.oldest === null);
    say(this.members, its.members ? number(its.members) : "none");
    this.members.classList.toggle("warn", its.members === 0 && its.lag > 0);
    for (const [cell, count, kind] of [[this.failed, its.held_up, "warn"], [this.dead, its.dead, "bad"]]) {
      say(cell, number(count));
      cell.classList.toggle(kind, count > 0);
      cell.classList.toggle("none", count === 0);
    }
  }

  tick(seconds, { told }) {
    for (let left = seconds; left; left--) this.lags.push(told ? this.#its.lag : null);
  }
}

export class Tables {
  #channels;
  #streams;
  #groups;

  constructor(onToggle) {
    const table = (id, make) => new Rows(document.getElementById(id), make);
    this.#channels = table("channels", ({ name }) => new ChannelRow("channel", name, onToggle));
    this.#streams = table("streams", ({ name }) => new StreamRow("stream", name, onToggle));
    this.#groups = table("groups", (its) => new GroupRow(its));
  }

  /** Lists of what is known of each. */
  show({ channels, streams, groups }) {
    const keyed = (list) => list.map((its) => [its.name, its]);
    this.#channels.show(keyed(channels));
    this.#streams.show(keyed(streams));
    this.#groups.show(groups.map((its) => [`${its.stream}\0${its.name}`, its]));
    document.getElementById("channels-empty").hidden = channels.length > 0;
    document.getElementById("streams-empty").hidden = streams.length > 0;
    document.getElementById("groups-section").hidden = groups.length === 0;
  }

  row(kind, name) {
    return (kind === "channel" ? this.#channels : this.#streams).get(name);
  }

  /** So many seconds have passed; `arriving`: whether what is followed arrives, `told`: whether the gateway tells. */
  tick(seconds, known) {
    for (const rows of [this.#channels, this.#streams, this.#groups])
      for (const row of rows.values()) row.tick(seconds, known);
  }
}
