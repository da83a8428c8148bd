// One entry: its value, what is known of it, and why it is here or where else it is.
//
// An answer that comes late changes nothing that was opened or begun meanwhile.

import { ask, json, Refused } from "./ask.js";
import { equal, escape, hashTag } from "./bytes.js";
import { confirm } from "./dialogs.js";
import { editor } from "./editor.js";
import { count, expiry, many, size } from "./units.js";
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
  await reopen(key);
  panel.focus({ preventScroll: true });
  panel.scrollIntoView({ block: "nearest" });
}

/** Shows the key as it is now, with what there is to say: `good` of what was done, or `bad` of what was not. */
async function reopen(key, said = {}) {
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
  again.addEventListener("click", () => reopen(key));
  panel.replaceChildren(title(key), el("p", { className: "said", role: "alert" }, error.message), again);
}

const title = (key) => el("h3", { className: "mono" }, keyShown(key));

function show(opened, said) {
  current = opened;
  const { key, where, entry } = opened;
  const note = el("p", { className: said.bad ? "said" : "said good", role: said.bad ? "alert" : "status" });
  panel.replaceChildren(title(key), facts(opened), note);
  note.textContent = said.bad ?? said.good ?? "";
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
    add("Expires", el("span", { id: "ttl" }, expiry(entry.expiresAt)));
  }
  add("Slot", count(where.slot));
  add("Shard", `${where.shard}`, el("span", { className: "muted" }, ` · primary ${where.primary}`));
  add("Why", why(key, where));
  return list;
}

/** A key is where the hash of it, or of its part in braces, says. */
function why(key, where) {
  const tag = hashTag(key);
  const hashed =
    tag === null ? "the whole key" : el("span", { className: "mono" }, keyShown(tag), " (the part in braces)");
  const slot = ` gives slot ${count(where.slot)}, which is ${where.shard}’s`;
  return el("span", {}, "the hash of ", hashed, slot);
}

function tick() {
  const node = document.getElementById("ttl");
  if (!node || !current?.entry?.expiresAt) return;
  const text = expiry(current.entry.expiresAt);
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
  reload.addEventListener("click", () => reopen(key));
  const row = el("div", { className: "row actions" });
  if (where.this_node === "primary") {
    const isLarge = entry.bytes.length > MOST_EDITED;
    const text = isLarge ? "Too large to edit here" : "Edit";
    const change = el("button", { type: "button", className: "primary", disabled: isLarge }, text);
    const remove = el("button", { type: "button", className: "danger" }, "Delete");
    change.addEventListener("click", edit);
    remove.addEventListener("click", () => deleteEntry([change, remove, reload]));
    row.append(change, remove);
  }
  row.append(reload);
  return row;
}

function edit() {
  const { key, entry } = current;
  const mine = editor(entry, {
    load: () => load(key),
    saved: () => {
      whenChanged();
      // The editing was ended before it was known what became of the save.
      if (editing === null && equal(current.key, key)) reopen(key, { good: "Saved." });
    },
    // Without an entry it is asked for; with one there is no moment in which something could be typed and lost.
    done: (said, entry) => editing === mine && finished(key, said, entry),
  });
  editing = mine;
  for (const part of panel.querySelectorAll(".view, .actions")) part.remove();
  panel.append(editing.form);
  editing.focus();
}

async function finished(key, said, entry) {
  if (!entry) await reopen(key, said);
  else {
    editing = null;
    show({ ...current, entry }, said);
  }
  panel.focus({ preventScroll: true });
}

async function deleteEntry(buttons) {
  const { key, entry } = current;
  const mine = opened;
  const question = el("p", {}, "Delete ", el("strong", { className: "mono" }, keyShown(key)), "?");
  if (!(await confirm("Delete this key?", [question], "Delete"))) return buttons[1].focus();
  // Nothing else is begun before it is known what became of it.
  for (const button of buttons) button.disabled = true;
  const said = await outcomeOfDelete(key, entry);
  whenChanged();
  if (mine === opened) await finished(key, said);
}

async function outcomeOfDelete(key, entry) {
  try {
    await ask(`/kv?key=${escape(key)}`, { method: "DELETE", headers: { "if-match": `"${entry.position}"` } });
    return { good: "Deleted." };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 412) return { bad: "Not deleted: it was changed meanwhile. This is what is there now." };
    const unknown = " Whether it was deleted is not known. This is what is there now.";
    return { bad: error.message + (error.isUnknown ? unknown : "") };
  }
}
