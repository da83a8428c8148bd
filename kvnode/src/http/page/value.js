// A value as text, as JSON or as bytes in hex: three views of the same bytes, none of which changes them.

import { toHex, toText } from "./bytes.js";
import { count, size } from "./units.js";
import { el, MOST_SHOWN, value as shown } from "./visible.js";

const VIEWS = ["Text", "JSON", "Hex"];

/** The views to choose from, with the one that fits best chosen. */
export function view(bytes) {
  const json = pretty(bytes);
  const screen = el("pre", { className: "value mono", tabIndex: 0, ariaLabel: "Value" });
  const group = el("div", { className: "segments", role: "group", ariaLabel: "Show the value as" });
  const choose = (name) => {
    for (const button of group.children) button.ariaPressed = String(button.textContent === name);
    screen.replaceChildren(...content(name, bytes, json));
  };
  for (const name of VIEWS) {
    const button = el("button", { type: "button", disabled: name === "JSON" && json === null }, name);
    button.addEventListener("click", () => choose(name));
    group.append(button);
  }
  choose(json !== null && /^\s*[[{]/.test(json) ? "JSON" : toText(bytes) === null ? "Hex" : "Text");
  return el("div", { className: "view" }, group, screen);
}

/** One screen of a value, for comparing two. */
export const screen = (bytes) =>
  el("pre", { className: "value mono", tabIndex: 0 }, ...content(toText(bytes) === null ? "Hex" : "Text", bytes, null));

function content(name, bytes, json) {
  if (bytes.length === 0) return [el("span", { className: "muted" }, "empty: 0 bytes")];
  const part = bytes.subarray(0, name === "Hex" ? MOST_SHOWN / 16 : MOST_SHOWN);
  if (name === "JSON") return [shown(new TextEncoder().encode(json))];
  const left = bytes.length - part.length;
  const more = left
    ? el("span", { className: "muted" }, `\n… ${count(left)} of ${size(bytes.length)} are not shown`)
    : "";
  return [name === "Hex" ? dump(part) : shown(part), more];
}

/** Place, bytes in hex, and what of them is ASCII. */
function dump(bytes) {
  return toHex(bytes)
    .split("\n")
    .map((line, row) => {
      const chars = Array.from(bytes.subarray(row * 16, row * 16 + 16), (byte) =>
        byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "·",
      );
      return `${(row * 16).toString(16).padStart(6, "0")}  ${line.padEnd(47)}  ${chars.join("")}`;
    })
    .join("\n");
}

/** JSON with a line for each member, or null if it is none or too long. Its tokens stay as they are: a number is not
 *  rounded, a name that stands twice not dropped. */
export function pretty(bytes) {
  const text = bytes.length <= MOST_SHOWN ? toText(bytes) : null;
  try {
    JSON.parse(text ?? "no");
  } catch {
    return null;
  }
  return indent(text.match(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s"[\]{},:]+/g));
}

/** What is nested deeper would be mostly blanks, far more of them than the value has bytes. */
const MOST_NESTED = 64;

/** The tokens with a line for each member; null if they are nested too deep. */
function indent(tokens) {
  let depth = 0;
  let out = "";
  const newLine = () => "\n" + "  ".repeat(depth);
  for (const [at, token] of tokens.entries()) {
    const isEmpty = "[{".includes(token) && "]}".includes(tokens[at + 1]);
    if ("]}".includes(token)) {
      depth--;
      out += "[{".includes(tokens[at - 1]) ? token : newLine() + token;
    } else if ("[{".includes(token)) {
      if (++depth > MOST_NESTED) return null;
      out += isEmpty ? token : token + newLine();
    } else {
      out += token === "," ? token + newLine() : token === ":" ? ": " : token;
    }
  }
  return out;
}
