// One entry: its value, what is known of it, and why it is here or where else it is.

import { ask, json, Refused } from "./ask.js";
import { escape, fromText, toText } from "./bytes.js";
import { confirm } from "./dialogs.js";
import { editor } from "./editor.js";
import { count, duration, many, size } from "./units.js";
import { view } from "./value.js";
import { el, key as keyShown } from "./visible.js";

const panel = document.getElementById("entry");
/** Most bytes that a text field is given to edit; more of it would make the page slow. */
const MOST_EDITED = 256 << 10;
let whenChanged = () => {};
let current = null;
let editing = null;
/** Counts openings: an answer for a key that was left meanwhile is dropped. */
let opened = 0;

/** `changed` is called after each write; the tab asks before it closes on unsaved text. */
export function start(changed) {
  whenChanged = changed;
  addEventListener("beforeunload", (event) => {
    if (editing?.isChanged()) event.preventDefault();
  });
  setInterval(tick, 1_000);
}

/** Opens a key of any shard. */
export async function open(key) {
  if (
    editing?.isChanged() &&
    !(await confirm("Leave without saving?", [el("p", {}, "What you typed will be lost.")], "Leave"))
  ) {
    return;
  }
  const hash = `#key=${escape(key)}`;
  if (location.hash !== hash) history.pushState(null, "", hash);
  await reopen(key, "");
  panel.focus({ preventScroll: true });
  panel.scrollIntoView({ block: "nearest" });
}

/** Shows the key as it is now, with a text about what was just done. */
async function reopen(key, said) {
  const mine = ++opened;
  editing = null;
  try {
    const where = await json(`/route?key=${escape(key)}`);
    const entry = where.this_node === null ? null : await load(key);
    if (mine === opened) show({ key, where, entry }, said);
  } catch (error) {
    if (mine === opened) showFailure(key, error);
  }
}

/** The entry as it is now; without bytes and position if there is none. */
async function load(key) {
  try {
    const answer = await ask(`/kv?key=${escape(key)}`);
    const ttl = answer.headers.get("kv-ttl-ms");
    return {
      key,
      bytes: new Uint8Array(await answer.arrayBuffer()),
      position: answer.headers.get("etag").replaceAll('"', ""),
      expiresAt: ttl === null ? null : Date.now() + Number(ttl),
    };
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 404) throw error;
    return { key, bytes: null, position: null, expiresAt: null };
  }
}

function showFailure(key, error) {
  const again = el("button", { type: "button" }, "Try again");
  again.addEventListener("click", () => reopen(key, ""));
  panel.replaceChildren(title(key), el("p", { className: "said", role: "alert" }, error.message), again);
}

const title = (key) => el("h3", { className: "mono" }, keyShown(key));

function show(opened, said) {
  current = opened;
  const { key, where, entry } = opened;
  const note = el("p", { className: "said good", role: "status" });
  panel.replaceChildren(title(key), facts(opened), note);
  note.textContent = said;
  if (entry === null) return panel.append(elsewhere(key, where));
  if (where.this_node === "replica") panel.append(readOnly(key, where));
  if (entry.bytes !== null) return panel.append(view(entry.bytes), actions(opened));
  panel.append(el("p", { className: "muted" }, "There is no such key."));
  if (where.this_node === "primary") edit();
}

function facts({ key, where, entry }) {
  const list = el("dl", { className: "facts" });
  const add = (name, ...content) => list.append(el("div", {}, el("dt", {}, name), el("dd", {}, ...content)));
  if (entry?.bytes) {
    add(
      "Size",
      many(entry.bytes.length, "byte") + (entry.bytes.length < 1_024 ? "" : ` (${size(entry.bytes.length)})`),
    );
    add("Version", el("span", { className: "mono" }, entry.position));
    add("Expires", el("span", { id: "ttl" }, expiry(entry)));
  }
  add("Slot", count(where.slot));
  add("Shard", `${where.shard}`, el("span", { className: "muted" }, ` · primary ${where.primary}`));
  add("Why", why(key, where));
  return list;
}

/** A key is where the hash of it, or of its part in braces, says. */
function why(key, where) {
  const text = toText(key) ?? "";
  const tag = /\{([^}]+)\}/.exec(text.slice(Math.max(0, text.indexOf("{"))));
  const isTagged = tag !== null && text.indexOf("{") === text.indexOf(tag[0]);
  const hashed = isTagged
    ? el("span", { className: "mono" }, keyShown(fromText(tag[1])), " (the part in braces)")
    : "the whole key";
  const slot = ` gives slot ${count(where.slot)}, which is ${where.shard}’s`;
  return el("span", {}, "the hash of ", hashed, slot);
}

const expiry = (entry) =>
  entry.expiresAt === null ? "never" : `in ${duration(Math.max(0, entry.expiresAt - Date.now()))}`;

function tick() {
  const node = document.getElementById("ttl");
  if (!node || !current?.entry?.expiresAt) return;
  const text = current.entry.expiresAt <= Date.now() ? "expired" : expiry(current.entry);
  if (node.textContent !== text) node.textContent = text;
}

const page = (address, key) => `${location.protocol}//${address}/#key=${escape(key)}`;

function elsewhere(key, where) {
  return el(
    "p",
    { className: "notice" },
    `This key belongs to ${where.shard}, another shard than this node’s. `,
    el("a", { href: page(where.primary, key), id: "owner" }, `Open it at ${where.primary}`),
  );
}

function readOnly(key, where) {
  return el(
    "p",
    { className: "notice" },
    "Read-only: this node is a replica. ",
    el("a", { href: page(where.primary, key), id: "owner" }, `Change it at the primary, ${where.primary}`),
  );
}

function actions({ key, where, entry }) {
  const reload = el("button", { type: "button" }, "Reload");
  reload.addEventListener("click", () => reopen(key, ""));
  const row = el("div", { className: "row actions" });
  if (where.this_node === "primary") {
    const isLarge = entry.bytes.length > MOST_EDITED;
    const text = isLarge ? "Too large to edit here" : "Edit";
    const change = el("button", { type: "button", className: "primary", disabled: isLarge }, text);
    const remove = el("button", { type: "button", className: "danger" }, "Delete");
    change.addEventListener("click", edit);
    remove.addEventListener("click", () => deleteEntry(remove));
    row.append(change, remove);
  }
  row.append(reload);
  return row;
}

function edit() {
  const { key, entry } = current;
  editing = editor(entry, { load: () => load(key), done: (said) => finished(key, said) });
  for (const part of panel.querySelectorAll(".view, .actions")) part.remove();
  panel.append(editing.form);
  editing.focus();
}

async function finished(key, said) {
  await reopen(key, said);
  panel.focus({ preventScroll: true });
  if (said) whenChanged();
}

async function deleteEntry(button) {
  const { key, entry } = current;
  const question = el("p", {}, "Delete ", el("strong", { className: "mono" }, keyShown(key)), "?");
  if (!(await confirm("Delete this key?", [question], "Delete"))) return button.focus();
  try {
    await ask(`/kv?key=${escape(key)}`, { method: "DELETE", headers: { "if-match": `"${entry.position}"` } });
    await finished(key, "Deleted.");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    await finished(
      key,
      error.status === 412 ? "Not deleted: it was changed meanwhile. This is what is there now." : error.message,
    );
  }
}
