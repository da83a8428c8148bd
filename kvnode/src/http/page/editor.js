// The form that changes one entry, so that two people do not overwrite each other.
//
// A save carries the position of the entry that was shown (`If-Match`), or asks that there be none
// (`If-None-Match: *`). What a text field would change or hide is edited in hex. What is typed while a save is on its
// way stays, and is not saved with it.

import { ask, Refused } from "./ask.js";
import { equal, escape, fromHex, fromText, toHex, toText } from "./bytes.js";
import { conflict } from "./dialogs.js";
import { expiry as expiryText, parseDuration } from "./units.js";
import { el, isPlain } from "./visible.js";

/** An editor of an entry `{key, bytes, position, expiresAt}`; `bytes` and `position` are null for a new key.
 *  `load` gives the entry as it is now, `saved` is called after each save, `done` at the end with what there is to say
 *  and, where it is known, the entry. */
export function editor(entry, { load, saved, done }) {
  const state = { base: entry, start: entry.bytes ?? new Uint8Array(), isHex: !hasText(entry.bytes), isSaving: false };
  const form = el("form", { className: "editor", ariaLabel: "Change the entry" });
  const area = el("textarea", { id: "edit-value", className: "mono", rows: 8, spellcheck: false, autocomplete: "off" });
  const said = el("p", { className: "said", role: "alert" });
  const [expiry, time] = expiryFields(entry);
  const parts = { form, area, said, expiry, time, state, load, saved, done };
  area.value = state.isHex ? toHex(state.start) : toText(state.start);
  form.append(
    el("div", { className: "row" }, el("label", { htmlFor: "edit-value" }, "Value"), hexBox(parts)),
    area,
    el("div", { className: "row" }, el("label", { htmlFor: "edit-expiry" }, "Expires"), expiry, time),
    said,
    buttons(parts),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    save(parts);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) form.requestSubmit();
    if (event.key === "Escape") leave(parts);
  });
  const isChanged = () => (!form.isConnected ? false : !isSame(parts));
  return { form, focus: () => area.focus(), isChanged };
}

function buttons(parts) {
  const cancel = el("button", { type: "button", className: "quiet" }, "Cancel");
  cancel.addEventListener("click", () => parts.done({}));
  const save = el(
    "button",
    { type: "submit", className: "primary" },
    parts.state.base.bytes === null ? "Save new key" : "Save",
  );
  return el("div", { className: "row" }, save, cancel, el("span", { className: "muted small" }, "Ctrl+Enter saves"));
}

/** Escape ends the editing only while nothing would be lost. */
function leave(parts) {
  if (isSame(parts)) parts.done({});
  else say(parts, "There are changes: save them, or press Cancel to lose them.");
}

/** Neither the value nor the choice of a time is another than at the start. */
function isSame({ area, expiry, state }) {
  const bytes = read(area.value, state.isHex);
  return bytes !== null && equal(bytes, state.start) && expiry.selectedIndex === 0;
}

const hasText = (bytes) => {
  const text = bytes === null ? "" : toText(bytes);
  return text !== null && isPlain(text);
};

const read = (text, isHex) => (isHex ? fromHex(text) : fromText(text));

function hexBox(parts) {
  const box = el("input", { type: "checkbox", checked: parts.state.isHex });
  box.addEventListener("change", () => {
    const bytes = read(parts.area.value, parts.state.isHex);
    if (bytes === null || (!box.checked && !hasText(bytes))) {
      box.checked = parts.state.isHex;
      say(parts, bytes === null ? "This is not hex." : "A text field would change or hide some of these bytes.");
      return;
    }
    say(parts, "");
    parts.state.isHex = box.checked;
    parts.area.value = box.checked ? toHex(bytes) : toText(bytes);
  });
  return el("label", { className: "check" }, box, " as hex");
}

function expiryFields(entry) {
  const choices = [
    ["never", "never"],
    ["after", "after"],
  ];
  if (entry.bytes !== null) choices.unshift(["keep", "as now"]);
  const select = el("select", { id: "edit-expiry" }, ...choices.map(([value, text]) => el("option", { value }, text)));
  const time = el("input", {
    type: "text",
    className: "mono short",
    placeholder: "90s",
    ariaLabel: "Time until it expires, such as 90s, 5m, 2h or 1d",
  });
  time.hidden = true;
  select.addEventListener("change", () => {
    time.hidden = select.value !== "after";
    if (!time.hidden) time.focus();
  });
  return [select, time];
}

/** When the entry would expire over `base`: a time, null for never, or undefined with the reason said. */
function chosenExpiry(parts, base) {
  const { expiry, time } = parts;
  if (expiry.value === "never") return null;
  if (expiry.value === "keep") return base.expiresAt;
  const ms = parseDuration(time.value);
  if (ms !== null) return Date.now() + ms;
  say(parts, "A time is a number and ms, s, m, h or d: 90s.");
}

/** What would be stored over `base` as things stand in the form, or null with the reason said. */
function draft(parts, base) {
  const bytes = read(parts.area.value, parts.state.isHex);
  if (bytes === null) say(parts, "This is not hex: pairs of the digits 0-9 and a-f.");
  const expiresAt = bytes && chosenExpiry(parts, base);
  return bytes === null || expiresAt === undefined ? null : { key: base.key, bytes, expiresAt };
}

/** Saves once, however often it is asked for until that is done. */
async function save(parts) {
  if (parts.state.isSaving) return;
  const mine = draft(parts, parts.state.base);
  if (mine === null) return;
  parts.state.isSaving = true;
  say(parts, "");
  try {
    await send(parts, mine);
  } finally {
    parts.state.isSaving = false;
  }
}

async function send(parts, mine) {
  const { base } = parts.state;
  const ms = mine.expiresAt === null ? null : Math.round(mine.expiresAt - Date.now());
  if (ms !== null && ms <= 0) return say(parts, "It has expired meanwhile. Choose another time.");
  const ttl = ms === null ? "" : `&ttl=${ms}ms`;
  const headers = base.position === null ? { "if-none-match": "*" } : { "if-match": `"${base.position}"` };
  const before = seen(parts);
  try {
    const answer = await ask(`/kv?key=${escape(base.key)}${ttl}`, { method: "PUT", headers, body: mine.bytes });
    stored(parts, { ...mine, position: answer.headers.get("etag").replaceAll('"', "") }, before);
  } catch (error) {
    await failed(parts, mine, error);
  }
}

/** All that a person can change in the form. */
const seen = ({ area, expiry, time, state }) => [area.value, state.isHex, expiry.value, time.value].join("\n");

function stored(parts, entry, before) {
  parts.saved();
  if (seen(parts) === before) {
    const until = entry.expiresAt === null ? "" : `, expires ${expiryText(entry.expiresAt)}`;
    return parts.done({ good: `Saved${until}.` }, entry);
  }
  Object.assign(parts.state, { base: entry, start: entry.bytes });
  say(parts, "Saved as it was then. What you typed since is not saved yet.");
}

async function failed(parts, mine, error) {
  if (!(error instanceof Refused)) throw error;
  if (error.status !== 412) {
    const unknown = error.isUnknown ? " Whether it was saved is not known: look before you save again." : "";
    return say(parts, error.message + unknown);
  }
  const theirs = await loaded(parts);
  // Who went away meanwhile is asked nothing.
  if (theirs === null || !parts.form.isConnected) return;
  const again = draft(parts, theirs);
  if (again === null) return;
  const choice = await conflict(again, theirs);
  if (choice === "theirs") return parts.done({ good: "Kept what is there." });
  if (choice === "") return parts.area.focus();
  parts.state.base = theirs;
  await send(parts, again);
}

/** The entry as somebody else made it, or null with the reason said. */
async function loaded(parts) {
  try {
    return await parts.load();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(parts, `Not saved: Somebody changed this key meanwhile. What is there now cannot be shown: ${error.message}`);
    return null;
  }
}

const say = (parts, text) => {
  parts.said.textContent = text;
};
