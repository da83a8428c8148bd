// The list of keys: those of this node's shard that begin with what was typed, a page at a time.

import { lines } from "./ask.js";
import { escape, field, fromText, unescape } from "./bytes.js";
import { duration, many } from "./units.js";
import { el, key } from "./visible.js";

const PAGE = 50;

const at = (id) => document.getElementById(id);
let open = () => {};
/** The prefix, where each page so far begins (its `after`), and where the next one would. They are of one search, also
 *  after it failed. */
let prefix = new Uint8Array();
let pages = [null];
let next = null;
/** Whether the list is of this search; while it is not, that of the one before stays, until this one fails. */
let isListed = false;
/** Counts searches: an answer that comes after a later question is dropped. */
let asked = 0;

/** Begins; `openKey` is called with the key that a person chooses. */
export function start(openKey) {
  open = openKey;
  at("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const bytes = typed();
    if (bytes) search(bytes);
  });
  at("search-open").addEventListener("click", () => {
    const bytes = typed();
    if (bytes?.length) open(bytes);
    else if (bytes) say("Type the key first.");
  });
  at("page-next").addEventListener("click", () => turn([...pages, next]));
  at("page-back").addEventListener("click", () => turn(pages.slice(0, -1)));
  at("key-list").addEventListener("keydown", move);
  search(prefix);
}

/** Shows the page again, after something was changed. */
export const again = () => turn(pages);

function typed() {
  const text = at("search-text").value;
  const bytes = at("search-escapes").checked ? unescape(text) : fromText(text);
  if (bytes === null) say("A % is not followed by two hex digits.");
  else if (bytes.length > 511) say(`A key has at most 511 bytes; this has ${bytes.length}.`);
  else return bytes;
  return null;
}

function search(bytes) {
  prefix = bytes;
  pages = [null];
  next = null;
  isListed = false;
  // What is listed is of the search before: there is nowhere to turn to yet.
  showTurns();
  say("");
  return turn(pages);
}

async function turn(to) {
  const mine = ++asked;
  const after = to.at(-1) === null ? "" : `&after=${encodeURIComponent(to.at(-1))}`;
  try {
    const found = await lines(`/kv?prefix=${escape(prefix)}&limit=${PAGE}&keys_only=true${after}`);
    if (mine !== asked) return;
    pages = to;
    show(found);
  } catch (error) {
    if (mine !== asked) return;
    say(error.message);
    if (!isListed) list([]);
  }
}

function show(found) {
  const end = found.at(-1);
  const entries = found.slice(0, -1);
  next = end.next ?? null;
  isListed = true;
  list(entries);
  const page = pages.length > 1 || next !== null ? ` on page ${pages.length}` : "";
  say(entries.length ? `${many(entries.length, "key")}${page}.` : nothing());
}

function list(entries) {
  at("key-list").replaceChildren(...entries.map(line));
  showTurns();
}

function showTurns() {
  at("page-next").disabled = next === null;
  at("page-back").disabled = pages.length === 1;
}

const nothing = () => (prefix.length ? "No key of this shard begins so." : "This shard has no keys yet.");

function line(entry) {
  const bytes = field(entry, "key");
  const ttl =
    entry.ttl_ms === undefined ? "" : el("span", { className: "ttl", title: "expires" }, "◷ ", duration(entry.ttl_ms));
  const button = el("button", { type: "button", className: "key mono" }, key(bytes), ttl);
  button.addEventListener("click", () => open(bytes));
  return el("li", {}, button);
}

/** Up and down go through the list. */
function move(event) {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const to = step && event.target.closest("li")?.[step]?.querySelector("button");
  if (!to) return;
  event.preventDefault();
  to.focus();
}

const say = (text) => (at("found").textContent = text);
