// Numbers with their units, for people; and the durations that people type.

const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const NONE = "–";

/** A count with its thousands apart. */
export const count = (number) => (number == null ? NONE : Math.round(number).toLocaleString("en-GB"));

/** One of several things, or many. */
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

/** Bytes in KiB, MiB and so on. */
export function size(bytes) {
  if (bytes == null) return NONE;
  let unit = 0;
  let number = bytes;
  for (; number >= 1024 && unit < 4; unit++) number /= 1024;
  return `${unit && number < 10 ? number.toFixed(1) : Math.round(number)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

/** Milliseconds as the largest unit that fits, two of them from minutes on. */
export function duration(ms) {
  if (ms == null) return NONE;
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${ms < 10_000 ? (ms / 1_000).toFixed(1) : Math.floor(ms / 1_000)} s`;
  const pairs = [
    ["d", "h"],
    ["h", "m"],
    ["m", "s"],
  ];
  const [large, small] = pairs.find(([unit]) => ms >= UNITS[unit]);
  return `${Math.floor(ms / UNITS[large])} ${large} ${Math.floor((ms % UNITS[large]) / UNITS[small])} ${small}`;
}

/** Microseconds, as µs, ms or s. */
export function micros(us) {
  if (us == null) return NONE;
  if (us < 1_000) return `${us < 10 ? Number(us.toFixed(1)) : Math.round(us)} µs`;
  return us < 10_000 ? `${Number((us / 1_000).toFixed(1))} ms` : duration(us / 1_000);
}

/** When an entry expires, seen from now. */
export function expiry(at) {
  if (at === null) return "never";
  return at <= Date.now() ? "expired" : `in ${duration(at - Date.now())}`;
}

/** A time of day, with its day unless that is today. */
export function clock(ms) {
  const [at, today] = [new Date(ms), new Date()];
  const time = at.toLocaleTimeString("en-GB");
  if (at.toDateString() === today.toDateString()) return time;
  return `${at.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" })}, ${time}`;
}

/** Milliseconds of a text such as 90s, or null. */
export function parseDuration(text) {
  const parts = /^(\d{1,15})(ms|s|m|h|d)$/.exec(text.trim());
  const ms = parts ? Number(parts[1]) * UNITS[parts[2]] : 0;
  return ms > 0 && Number.isSafeInteger(ms) ? ms : null;
}
