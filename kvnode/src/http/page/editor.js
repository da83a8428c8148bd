// The form that changes one entry, so that two people do not overwrite each other.
//
// A save carries the position of the entry that was shown (`If-Match`), or asks that there be none
// (`If-None-Match: *`). What a text field would change or hide is edited in hex.

import { ask, Refused } from "./ask.js";
import { equal, escape, fromHex, fromText, toHex, toText } from "./bytes.js";
import { conflict } from "./dialogs.js";
import { duration, parseDuration } from "./units.js";
import { el, isPlain } from "./visible.js";

/** An editor of an entry `{key, bytes, position, expiresAt}`; `bytes` and `position` are null for a new key.
 *  `load` gives the entry as it is now, `done` is called after a save or at the end with a text to say. */
export function editor(entry, { load, done }) {
  const state = { base: entry, start: entry.bytes ?? new Uint8Array(), isHex: !hasText(entry.bytes) };
  const form = el("form", { className: "editor", ariaLabel: "Change the entry" });
  const area = el("textarea", { id: "edit-value", className: "mono", rows: 8, spellcheck: false, autocomplete: "off" });
  const said = el("p", { className: "said", role: "alert" });
  const [expiry, time] = expiryFields(entry);
  const parts = { form, area, said, expiry, time, state, load, done };
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
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    if (event.key === "Escape") leave(parts);
  });
  const isChanged = () => (!form.isConnected ? false : !isSame(parts));
  return { form, focus: () => area.focus(), isChanged };
}

function buttons(parts) {
  const cancel = el("button", { type: "button", className: "quiet" }, "Cancel");
  cancel.addEventListener("click", () => parts.done(""));
  const save = el(
    "button",
    { type: "submit", className: "primary" },
    parts.state.base.bytes === null ? "Save new key" : "Save",
  );
  return el("div", { className: "row" }, save, cancel, el("span", { className: "muted small" }, "Ctrl+Enter saves"));
}

/** Escape ends the editing only while nothing would be lost. */
function leave(parts) {
  if (isSame(parts)) parts.done("");
  else say(parts, "There are changes: save them, or press Cancel to lose them.");
}

function isSame({ area, state }) {
  const bytes = read(area.value, state.isHex);
  return bytes !== null && equal(bytes, state.start);
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
  if (entry.expiresAt !== null) choices.unshift(["keep", "as now"]);
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

/** The query for the expiry that is chosen, or null with the reason said. */
function ttlQuery(parts) {
  const { expiry, time, state } = parts;
  if (expiry.value === "never") return "";
  const ms = expiry.value === "after" ? parseDuration(time.value) : state.base.expiresAt - Date.now();
  if (ms !== null && ms > 0) return `&ttl=${Math.round(ms)}ms`;
  say(
    parts,
    ms === null ? "A time is a number and ms, s, m, h or d: 90s." : "It has expired meanwhile. Choose another time.",
  );
  return null;
}

async function save(parts) {
  const bytes = read(parts.area.value, parts.state.isHex);
  if (bytes === null) return say(parts, "This is not hex: pairs of the digits 0-9 and a-f.");
  const ttl = ttlQuery(parts);
  if (ttl === null) return;
  const { base } = parts.state;
  const headers = base.position === null ? { "if-none-match": "*" } : { "if-match": `"${base.position}"` };
  try {
    await ask(`/kv?key=${escape(base.key)}${ttl}`, { method: "PUT", headers, body: bytes });
    const until = ttl ? `, for ${duration(Number(/\d+/.exec(ttl)[0]))}` : "";
    parts.done(`Saved${until}.`);
  } catch (error) {
    await failed(parts, bytes, error);
  }
}

async function failed(parts, mine, error) {
  if (!(error instanceof Refused)) throw error;
  if (error.status !== 412) {
    const unknown = error.isUnknown ? " Whether it was saved is not known: look before you save again." : "";
    return say(parts, error.message + unknown);
  }
  const theirs = await parts.load();
  const choice = await conflict(mine, theirs);
  if (choice === "theirs") return parts.done("Kept what is there.");
  if (choice === "mine") {
    parts.state.base = theirs;
    return save(parts);
  }
  parts.area.focus();
}

const say = (parts, text) => {
  parts.said.textContent = text;
};
