// The live feed: changes of this shard as they happen, newest first.
//
// It keeps the newest changes only, draws at most five times a second, and takes the stream up again behind the last
// event it saw, so that a broken connection or a restart of the node loses nothing. While the page is hidden it asks
// for nothing. More changes than a person could read pause it. A stream on which nothing comes is broken: nodes tell
// their position every 5 s.

import { Refused, stream } from "./ask.js";
import { escape, field, fromText } from "./bytes.js";
import { events } from "./sse.js";
import { clock, count } from "./units.js";
import { el, key, preview } from "./visible.js";

const MOST = 200;
const TOO_MANY_A_SECOND = 2_000;
const DRAW_EVERY = 200;
/** How long nothing may come, in ms. */
const SILENCE = 12_000;
const PREVIEW_BYTES = 120;
const GAPS = {
  log_truncated: "Changes in between are no longer in the log.",
  position_lost: "This shard has another history now: some of what stands below is not in it.",
};
const SIGNS = { put: "+ put", delete: "− delete", expire: "◷ expire" };

const at = (id) => document.getElementById(id);
let open = () => {};
let last = null;
let prefix = new Uint8Array();
let stop = null;
let isPaused = false;
/** Changes that are not drawn yet, cut to what is shown of them, and how many came in this second. */
let waiting = [];
let drawing = 0;
let second = { at: 0, changes: 0 };

/** Begins; `openKey` is called with the key that a person chooses. */
export function start(openKey) {
  open = openKey;
  at("feed-pause").addEventListener("click", () => (isPaused ? resume() : pause("Paused.")));
  at("feed-clear").addEventListener("click", () => at("feed").replaceChildren());
  at("feed-form").addEventListener("submit", (event) => {
    event.preventDefault();
    prefix = fromText(at("feed-prefix").value);
    at("feed").replaceChildren();
    waiting = [];
    last = null;
    resume();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop?.abort();
    else if (!isPaused) run();
  });
  if (!document.hidden) run();
}

function pause(text) {
  isPaused = true;
  stop?.abort();
  say(text);
  at("feed-rate").textContent = "";
  at("feed-pause").textContent = "Resume";
}

function resume() {
  isPaused = false;
  at("feed-pause").textContent = "Pause";
  second = { at: 0, changes: 0 };
  run();
}

/** Reads until it is stopped, taking up a stream that broke. */
async function run() {
  stop?.abort();
  const mine = (stop = new AbortController());
  for (let failures = 0; !mine.signal.aborted; failures++) {
    try {
      await read(mine.signal, () => (failures = 0));
    } catch (error) {
      if (mine.signal.aborted) return;
      if (error instanceof Refused && error.status === 410) forgetWhere(error.code);
      say(error instanceof Refused && error.status ? error.message : "Connection lost. Trying again.");
    }
    await new Promise((done) => setTimeout(done, Math.min(2_000, 250 * 2 ** failures)));
  }
}

/** What comes next cannot be told: go on from now, and say why. */
function forgetWhere(code) {
  last = null;
  waiting.push({ gap: GAPS[code] ?? "Changes in between cannot be told." });
  drawSoon();
}

async function read(signal, heard) {
  const headers = last === null ? {} : { "last-event-id": last };
  const patience = impatient(signal);
  try {
    const answer = await stream(`/watch?prefix=${escape(prefix)}`, { headers, signal: patience.signal });
    say("Watching.");
    for await (const some of events(answer, patience.renew)) {
      heard();
      for (const event of some) {
        take(event);
        // What is behind it has not been seen: it does not count as the place to go on from.
        if (isPaused) return;
      }
    }
    say("The stream ended. Trying again.");
  } finally {
    patience.end();
  }
}

/** A signal that ends a stream with `signal`, and when nothing came for too long. */
function impatient(signal) {
  const silence = new AbortController();
  let timer = 0;
  const end = () => clearTimeout(timer);
  const renew = () => {
    end();
    timer = setTimeout(() => silence.abort(), SILENCE);
  };
  renew();
  return { signal: AbortSignal.any([signal, silence.signal]), renew, end };
}

function take(event) {
  if (event.type === "log_truncated") return forgetWhere(event.type);
  if (event.id !== null) last = event.id;
  if (!(event.type in SIGNS)) return;
  waiting.push(cut(event));
  if (waiting.length > MOST) waiting.shift();
  countIn();
  drawSoon();
}

function countIn() {
  const now = Math.floor(Date.now() / 1_000);
  if (now !== second.at) {
    at("feed-rate").textContent = second.changes ? `${count(second.changes)} in the last second.` : "";
    second = { at: now, changes: 0 };
  }
  if (++second.changes < TOO_MANY_A_SECOND || isPaused) return;
  last = null;
  pause(`Paused: more than ${count(TOO_MANY_A_SECOND)} changes a second. Watch fewer keys, or resume from now on.`);
}

function drawSoon() {
  drawing ||= setTimeout(() => {
    drawing = 0;
    const list = at("feed");
    list.prepend(...waiting.map(line).reverse());
    waiting = [];
    while (list.children.length > MOST) list.lastChild.remove();
  }, DRAW_EVERY);
}

/** What is shown of an event: values may be large, and are not kept. */
function cut({ type, id, data: text }) {
  const data = JSON.parse(text);
  return { type, id, time: data.time_ms, bytes: field(data, "key"), what: what(type, data) };
}

function what(type, data) {
  if (type === "put") return preview(field(data, "value"), PREVIEW_BYTES);
  if (type === "delete") return data.by_expiry ? "expired" : "";
  return data.expires_at_ms === null ? "no longer expires" : `expires at ${clock(data.expires_at_ms)}`;
}

function line({ gap, type, id, time, bytes, what }) {
  if (gap) return el("li", { className: "gap" }, gap);
  const button = el("button", { type: "button", className: "link mono" }, key(bytes));
  button.addEventListener("click", () => open(bytes));
  return el(
    "li",
    { className: type },
    el("time", {}, clock(time)),
    el("span", { className: "kind" }, SIGNS[type]),
    button,
    el("span", { className: "mono what" }, what),
    el("span", { className: "mono muted position" }, id),
  );
}

/** Says it once: a status that is written again is read aloud again. */
function say(text) {
  if (at("feed-state").textContent !== text) at("feed-state").textContent = text;
}
