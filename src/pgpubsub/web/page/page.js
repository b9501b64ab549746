/** The page: what is where, and what happens when. What it shows of others is text, never HTML. */

import { Following } from "./following.js";
import { Log, Messages } from "./messages.js";
import { Gateway } from "./pgpubsub.js";
import { Sending } from "./sending.js";
import { Tables } from "./tables.js";
import { Token } from "./token.js";
import { Watching } from "./watching.js";
import { clock, element, listed, number, say, several, span } from "./words.js";

const BASE = new URL(".", location.href);
const MOST = 100; // channels and streams that an address makes the page follow
const DRAW = 250; // ms between two looks at what has come
const GAPS = 300; // ms in which gaps for one reason are told as one
const REASONS = {
  connection_lost: "connection lost",
  overflow: "too slow for them",
};

const at = (id) => document.getElementById(id);
const log = new Log();
const messages = new Messages();
const tables = new Tables((kind, name) => (following.has(kind, name) ? following.remove(kind, name) : following.add(kind, name)));
const token = new Token(onToken);
const gateway = () => new Gateway(BASE, { token: token.text || undefined });
const following = new Following(gateway(), { onEvent, onGap, onState, onRefused, onReplaced, onChange });
const watching = new Watching(new URL("overview", BASE), { onOverview, onLost, onRefused: onWatchRefused });
const sending = new Sending(gateway);

let overview = null; // the latest
let reached = null; // whether the gateway answers; null: not known yet
let refusal = null; // why it does not tell
let feedLostAt = null;
let databaseLostAt = null;
let reconnects = null;
let gaps = 0;
const gathered = new Map(); // gaps, by reason, until they are told

// What the gateway tells

function onOverview(told) {
  if (reached === false) log.add("back", "The gateway answers again.");
  reached = true;
  refusal = null;
  const { live, error } = told.server;
  if (!live && databaseLostAt === null) {
    databaseLostAt = Date.now();
    log.add("lost", `The gateway has lost the database${error ? `: ${error}` : ""}.`);
  } else if (live && (databaseLostAt !== null || (reconnects !== null && told.server.reconnects > reconnects))) {
    const lasted = databaseLostAt === null ? "" : ` after ${span((Date.now() - databaseLostAt) / 1000)}`;
    log.add("back", `The gateway has reconnected to the database${lasted}.`);
    databaseLostAt = null;
  }
  reconnects = told.server.reconnects;
  overview = told;
  showTables();
  showState();
}

function onLost(error) {
  if (reached) log.add("lost", `The gateway does not answer: ${error.message}.`);
  reached = false; // what it told last stays, so that the charts go on
  reconnects = null; // it may be another process that answers next
  showState();
}

function onWatchRefused(error) {
  refusal = error;
  overview = null;
  showTables();
  showState();
}

function onToken() {
  refusal = overview = null;
  watching.start(token.text);
  following.restart(gateway());
}

// What is followed

function onEvent(event) {
  const row = event.channel === undefined ? tables.row("stream", event.stream) : tables.row("channel", event.channel);
  if (row !== undefined) row.came++;
  messages.add(event);
}

function onGap(gap) {
  const [kind, name] = gap.channel === undefined ? ["stream", gap.stream] : ["channel", gap.channel];
  tables.row(kind, name)?.rates.markGap();
  say(at("gaps"), number(++gaps));
  if (!gathered.has(gap.reason)) {
    gathered.set(gap.reason, []);
    setTimeout(() => tellGaps(gap.reason), GAPS);
  }
  gathered.get(gap.reason).push({ ...gap, kind, name });
}

function tellGaps(reason) {
  const told = gathered.get(reason);
  gathered.delete(reason);
  const names = [...new Set(told.map(({ name }) => name))];
  const counted = told.every(({ count }) => count !== null);
  const count = told.reduce((sum, gap) => sum + gap.count, 0);
  const missing = counted ? `${several(count, "message")} missing` : "some may be missing";
  const since = told.map((gap) => gap.since).sort()[0];
  log.add("gap", `${listed(names, 5)}: ${REASONS[reason] ?? reason.replaceAll("_", " ")}, ${missing} since ${clock(since)}.`);
}

function onState(state, { error }) {
  if (state === "waiting" && feedLostAt === null) {
    feedLostAt = Date.now();
    log.add("lost", `What is followed does not arrive: ${error?.message ?? "the connection has ended"}.`);
  } else if (state === "live" && feedLostAt !== null) {
    log.add("back", `What is followed arrives again, after ${span((Date.now() - feedLostAt) / 1000)}.`);
    feedLostAt = null;
  } else if (state === "idle") feedLostAt = null;
  showState();
}

function onRefused(topics, error) {
  log.add("refused", `${listed(topics.map(({ kind, name }) => `${kind} ${name}`))}: ${error.message}${error.code ? ` (${error.code})` : ""}.`);
  if (error.status === 401) token.needed(error.message);
  showTables();
  showState();
}

function onReplaced(kept) {
  log.add("note", `The feed was replaced: of ${listed(kept)}, messages of this moment may be missing.`);
}

function onChange() {
  const named = (wanted) => following.topics.filter(({ kind }) => kind === wanted).map(({ name }) => encodeURIComponent(name));
  const parts = [["channels", named("channel")], ["streams", named("stream")]].filter(([, names]) => names.length);
  const fragment = parts.map(([kind, names]) => `${kind}=${names.join(",")}`).join("&");
  history.replaceState(null, "", fragment ? `#${fragment}` : location.pathname + location.search);
  showTables();
}

/** Follow what the address names: `#channels=a,b&streams=c`. */
function followAddress() {
  for (const part of location.hash.slice(1).split("&")) {
    const [kinds, names = ""] = part.split("=", 2);
    if (kinds !== "channels" && kinds !== "streams") continue;
    for (const name of names.split(",", MOST).filter(Boolean)) {
      try {
        following.add(kinds.slice(0, -1), decodeURIComponent(name));
      } catch {} // what is malformed names nothing
    }
  }
}

// What is shown

function showTables() {
  const merged = (kind, told) => {
    const known = new Map(told.map((its) => [its.name, its]));
    for (const topic of following.topics) {
      if (topic.kind === kind && !known.has(topic.name)) known.set(topic.name, { name: topic.name, rate: null, last: null });
    }
    return [...known.values()].map((its) => {
      const followed = following.has(kind, its.name);
      return { ...its, followed, refused: followed && following.isRefused(kind, its.name) };
    });
  };
  const told = overview?.streams ?? [];
  tables.show({
    channels: merged("channel", (overview?.channels ?? []).map((its) => ({ ...its, rate: rate(its) }))),
    streams: merged("stream", told),
    groups: told.flatMap((stream) => stream.groups.map((group) => ({ ...group, stream: stream.name }))),
  });
  showEmpty(at("streams-empty"));
  for (const id of ["follow-known", "send-known"]) offer(at(id), overview);
}

const received = new Map(); // of channels: how many, and when that was told

/** Messages a second on a channel that others follow. */
function rate({ name, received: count }) {
  const now = performance.now();
  const before = received.get(name);
  if (before === undefined || now > before.at + 900) received.set(name, { count, at: now, rate: rateSince(before, count, now) });
  return received.get(name).rate;
}

function rateSince(before, count, now) {
  return before === undefined || count < before.count ? null : (1000 * (count - before.count)) / (now - before.at);
}

function showEmpty(place) {
  if (overview === null) say(place, refusal === null ? "Looking for streams." : "Not to be seen without a token.");
  else if (overview.unseen?.code === "not-installed") {
    if (place.querySelector("code") !== null) return;
    place.replaceChildren("Streams are not installed in this database. This does it: ", element("code", "", "pgpubsub stream install"));
  } else if (overview.unseen !== null) say(place, `Streams cannot be shown: ${overview.unseen.detail}.`);
  else if (overview.streams === null) say(place, "Looking for streams.");
  else say(place, "There are no streams yet that you may read. The first append makes one.");
}

/** The names that there are, for the fields that take one. */
function offer(list, told) {
  const names = told === null ? [] : [...told.channels, ...(told.streams ?? [])].map(({ name }) => name).filter((name) => name.length < 100);
  const wanted = [...new Set(names)].sort().join("\n");
  if (list.dataset.names === wanted) return;
  list.dataset.names = wanted;
  list.replaceChildren(...wanted.split("\n").filter(Boolean).map((name) => new Option("", name)));
}

function state() {
  if (refusal !== null) return refusal.status === 401 ? ["waiting", "A token is needed"] : ["lost", "Not allowed"];
  if (reached === false) return ["lost", "The gateway does not answer"];
  if (overview === null) return ["waiting", "Connecting"];
  if (!overview.server.live) return ["lost", `No database since ${clock(overview.server.since)}`];
  if (following.state === "waiting" || following.state === "connecting") return ["waiting", "Connecting"];
  return ["live", `Live since ${clock(overview.server.since)}`];
}

function showState() {
  const [name, words] = state();
  at("connection").dataset.state = name;
  say(at("connection"), words);
  at("notice").hidden = refusal === null;
  if (refusal !== null) say(at("notice"), `${refusal.message}.`);
  const told = reached ? overview : null;
  say(at("clients"), number(told?.clients));
  say(at("reconnects"), number(told?.server.reconnects));
  say(at("heartbeat"), span(told?.server.heartbeat));
}

// What people do

at("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("follow-name");
  following.add(at("follow-kind").value, name.value);
  name.value = "";
  name.focus();
});
addEventListener("hashchange", followAddress);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address has something else
  at("main").focus();
});

setInterval(() => messages.render(), DRAW);
let ticked = performance.now();
setInterval(() => {
  const seconds = Math.round((performance.now() - ticked) / 1000); // more than one where nobody sees the page
  ticked += 1000 * seconds;
  tables.tick(Math.min(seconds, 60), { arriving: following.state === "live", told: reached === true });
}, 1000);

watching.start(token.text);
followAddress();
sending.begin();
showTables();
