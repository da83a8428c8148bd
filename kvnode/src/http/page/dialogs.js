// Questions that a person must answer before anything is done. Escape always means the answer that changes nothing.

import { expiry } from "./units.js";
import { screen } from "./value.js";
import { el } from "./visible.js";

/** Asks; gives the name of the chosen answer, or "" after Escape. Answers are `[name, text, class]`. */
function choose(title, content, answers) {
  const heading = el("h3", {}, title);
  const dialog = el("dialog", { ariaLabel: title }, heading, ...content);
  const row = el("div", { className: "row answers" });
  for (const [name, text, kind] of answers) {
    const button = el("button", { type: "button", className: kind ?? "" }, text);
    button.addEventListener("click", () => dialog.close(name));
    row.append(button);
  }
  dialog.append(row);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue);
    });
  });
}

/** Whether to go on. */
export async function confirm(title, content, yes) {
  return (
    (await choose(title, content, [
      ["", "Cancel"],
      ["yes", yes, "danger"],
    ])) === "yes"
  );
}

/** What to do when somebody else was faster: "mine", "theirs", or "" to go on editing. Both have `bytes` and `expiresAt`;
 *  if it was deleted, `theirs` has no bytes. */
export function conflict(mine, theirs) {
  const side = (title, { bytes, expiresAt }) =>
    el(
      "div",
      {},
      el("h4", {}, title),
      bytes === null ? gone : screen(bytes),
      bytes === null ? "" : el("p", { className: "muted" }, `Expires: ${expiry(expiresAt)}`),
    );
  const gone = el("p", { className: "muted" }, "The key was deleted.");
  const now = theirs.bytes === null ? "There now: nothing" : `There now, at ${theirs.position}`;
  const sides = el(
    "div",
    { className: "sides" },
    side("Yours, not saved", mine),
    side(now, theirs),
  );
  const said = el("p", {}, "Somebody changed this key after you had opened it. Nothing was overwritten.");
  return choose(
    "Two people changed this key",
    [said, sides],
    [
      ["", "Go on editing"],
      ["theirs", "Keep what is there"],
      ["mine", "Replace it with yours", "danger"],
    ],
  );
}

let asking = null;

/** Asks for a token, once however many requests want one. Gives the token or "". */
export function askForToken(wasRefused) {
  asking ??= tokenDialog(wasRefused).finally(() => (asking = null));
  return asking;
}

function tokenDialog(wasRefused) {
  const input = el("input", { type: "password", id: "token", autocomplete: "off", className: "mono", required: true });
  const said = wasRefused ? "The node refused this token." : "This node wants a token. It is kept for this tab alone.";
  const form = el(
    "form",
    {},
    el("p", {}, said),
    el("label", { htmlFor: "token" }, "Token"),
    input,
    el("div", { className: "row answers" }, el("button", { type: "submit" }, "Use it")),
  );
  const dialog = el("dialog", { ariaLabel: "Token" }, el("h3", {}, "Token"), form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close(input.value.trim());
  });
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue);
    });
  });
}
