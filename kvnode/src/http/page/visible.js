// Shows bytes as text that cannot disturb the page or deceive who reads it.
//
// Whatever is not plainly visible is shown as an escape in a box: control characters, marks that turn the direction of
// text, what has no width or is a space of another kind, and bytes that are not UTF-8. Nodes of the document are made,
// never markup, so that no text is ever parsed as HTML.

import { hex, toText } from "./bytes.js";

/** Everything that is not seen as itself: of a key, also line breaks and tabs. */
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}\p{DI}]|(?! )\p{Zs}/u;
/** Most bytes of a value that are shown. */
export const MOST_SHOWN = 64 << 10;

/** An element with properties and children; a text among them stays a text. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node && name !== "list" && name !== "role") node[name] = value;
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Bytes of a key on one line. */
export const key = (bytes) => shown(bytes, HIDDEN);

/** Bytes of a value, of which line breaks and tabs are kept. */
export const value = (bytes) => shown(bytes, /(?![\n\t])(?:[\p{C}\p{Zl}\p{Zp}\p{DI}]|(?! )\p{Zs})/u);

/** The beginning of a value on one line. */
export function preview(bytes, most) {
  const whole = bytes.length <= most;
  const node = key(whole ? bytes : bytes.subarray(0, most));
  if (!whole) node.append("…");
  return node;
}

/** Whether a text field would show and keep this text as it is. U+200D joins emoji and does no more. */
export const isPlain = (text) => !/(?![\n\t\u200d])[\p{C}\p{Zl}\p{Zp}]/u.test(text);

function shown(bytes, hidden) {
  const node = el("bdi", { className: "bytes" });
  for (const piece of pieces(bytes)) {
    if (typeof piece === "number") node.append(boxed(`\\x${hex(piece)}`));
    else appendText(node, piece, hidden);
  }
  return node;
}

function appendText(node, text, hidden) {
  for (const part of text.split(new RegExp(`(${hidden.source})`, "u"))) {
    if (part === "") continue;
    node.append(hidden.test(part) ? boxed(named(part)) : part);
  }
}

const boxed = (text) => el("span", { className: "escape" }, text);

function named(char) {
  const short = { "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0" }[char];
  return short ?? `\\u{${char.codePointAt(0).toString(16)}}`;
}

/** Runs of text, and single bytes (numbers) that belong to none. */
function pieces(bytes) {
  const whole = toText(bytes);
  if (whole !== null) return [whole];
  const found = [];
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const length = lengthOf(bytes[at]);
    const char = length && at + length <= bytes.length ? toText(bytes.subarray(at, at + length)) : null;
    if (char !== null) {
      text += char;
      at += length;
      continue;
    }
    if (text) found.push(text);
    found.push(bytes[at++]);
    text = "";
  }
  return text ? [...found, text] : found;
}

/** Length of the UTF-8 sequence that begins with this byte; 0 if none does. */
function lengthOf(byte) {
  if (byte < 0x80) return 1;
  if (byte < 0xc2 || byte > 0xf4) return 0;
  return byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}
