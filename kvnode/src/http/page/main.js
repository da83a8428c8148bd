// Puts the parts of the page together, and asks the node at a steady pace while somebody looks.

import { json, onHeard, onUnauthorised, Refused, token } from "./ask.js";
import * as browse from "./browse.js";
import { unescape } from "./bytes.js";
import * as charts from "./charts.js";
import * as cluster from "./cluster.js";
import { askForToken } from "./dialogs.js";
import * as entry from "./entry.js";
import * as feed from "./feed.js";
import { clock, duration } from "./units.js";

const EVERY = 1_000;

const at = (id) => document.getElementById(id);
let lostAt = 0;
/** Somebody was asked for a token and gave none: not asked again until he presses the button. */
let isDeclined = false;

onHeard((isThere) => {
  const isBack = isThere && lostAt !== 0;
  lostAt = isThere ? 0 : lostAt || Date.now();
  showLost();
  if (isBack) browse.again();
});

function showLost() {
  const text = lostAt ? `Node lost: ${location.host} has not answered since ${clock(lostAt)}. Trying again.` : "";
  at("lost").hidden = !lostAt;
  if (at("lost").textContent !== text) at("lost").textContent = text;
  document.body.classList.toggle("is-lost", lostAt !== 0);
  if (lostAt) cluster.forget();
}

onUnauthorised(async (wasRefused) => {
  at("token-open").hidden = false;
  return isDeclined ? false : takeToken(wasRefused);
});

async function takeToken(wasRefused) {
  const text = await askForToken(wasRefused);
  isDeclined = text === "";
  if (text) token.set(text);
  return text !== "";
}

at("token-open").addEventListener("click", async () => {
  if (await takeToken(false)) browse.again();
});

/** Does it now and then again and again, never twice at a time, and not while the page is hidden. */
function repeat(work) {
  const once = async () => {
    try {
      if (!document.hidden) await work();
    } catch (error) {
      // The node is silent or refuses: the banner says so, and the next time may be better.
      if (!(error instanceof Refused)) throw error;
    } finally {
      setTimeout(once, EVERY);
    }
  };
  once();
}

async function showSelf() {
  const status = await json("/status");
  document.title = `${status.address} · kvnode`;
  at("here").textContent = status.address;
  at("about").textContent =
    `${status.role} of ${status.shard} · version ${status.version} · up ${duration(status.uptime_seconds * 1_000)}`;
  at("keys-shard").textContent = `of ${status.shard}, this node’s shard`;
}

/** `#key=` names a key to open, in percent-escapes. */
function followHash() {
  const [, escaped] = /^#key=(.+)$/.exec(location.hash) ?? [];
  const key = escaped && unescape(escaped);
  if (key) entry.open(key);
}

entry.start(browse.again);
browse.start(entry.open);
feed.start(entry.open);
repeat(showSelf);
repeat(cluster.refresh);
repeat(charts.refresh);
followHash();
addEventListener("hashchange", followHash);
