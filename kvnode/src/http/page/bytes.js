// Keys and values are bytes, and what is written or typed of them is text: this goes from one to the other.
//
// Nothing here guesses. A text that is not what it should be gives null, and bytes that are no text stay bytes.

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Bytes of a text. */
export const fromText = (text) => encoder.encode(text);

/** The text of bytes, or null if they are not UTF-8. */
export function toText(bytes) {
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
}

/** Bytes in percent-escapes, for a URL: letters, digits and `-._~:` stay. */
export function escape(bytes) {
  const one = (byte) => {
    const char = String.fromCharCode(byte);
    return /[A-Za-z0-9._~:-]/.test(char) ? char : "%" + hex(byte).toUpperCase();
  };
  return Array.from(bytes, one).join("");
}

/** Bytes of a text with percent-escapes, or null if an escape is broken. */
export function unescape(text) {
  const given = fromText(text);
  const bytes = [];
  for (let at = 0; at < given.length; at++) {
    if (given[at] !== 0x25) {
      bytes.push(given[at]);
      continue;
    }
    const digits = String.fromCharCode(...given.subarray(at + 1, at + 3));
    if (!/^[0-9A-Fa-f]{2}$/.test(digits)) return null;
    bytes.push(parseInt(digits, 16));
    at += 2;
  }
  return Uint8Array.from(bytes);
}

/** Bytes of a field that is text under `name`, or base64 under `name_b64`; null if neither is there. */
export function field(object, name) {
  if (typeof object[name] === "string") return fromText(object[name]);
  const base64 = object[`${name}_b64`];
  if (typeof base64 !== "string") return null;
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

/** Pairs of hex digits, 16 bytes a line. */
export function toHex(bytes) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    lines.push(Array.from(bytes.subarray(at, at + 16), hex).join(" "));
  }
  return lines.join("\n");
}

/** Bytes of pairs of hex digits, with or without space between them; null if there is anything else. */
export function fromHex(text) {
  const digits = text.replace(/\s+/g, "");
  if (digits.length % 2 || !/^[0-9A-Fa-f]*$/.test(digits)) return null;
  const pairs = digits.match(/../g) ?? [];
  return Uint8Array.from(pairs, (pair) => parseInt(pair, 16));
}

/** Whether two are the same bytes. */
export const equal = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at]);

/** The part of a key that alone is hashed: what stands between its first `{` and the first `}` behind it, if anything
 *  does; else null. */
export function hashTag(key) {
  const start = key.indexOf(0x7b);
  const end = start < 0 ? -1 : key.indexOf(0x7d, start);
  return end > start + 1 ? key.subarray(start + 1, end) : null;
}

/** Two hex digits. */
export const hex = (byte) => byte.toString(16).padStart(2, "0");
