// How far a chart reaches and where the lines across it stand, at figures that are round in their unit.

const LEAST_SECONDS = 60;
const MOST_SECONDS = 600;
const MOST_LINES = 4;

/** Up to the newest sample: all there is, but a minute at least, so that a young node has no points but lines. */
export function lastMinutes(drawn) {
  const newest = drawn.data[0].at(-1) ?? Date.now() / 1_000;
  const known = newest - (drawn.data[0][0] ?? newest);
  return [newest - Math.min(MOST_SECONDS, Math.max(LEAST_SECONDS, known)), newest];
}

/** Times of day, with seconds where minutes would repeat. */
export function clockTimes(seconds) {
  const length = seconds.length > 1 && seconds[1] - seconds[0] < 60 ? 8 : 5;
  return seconds.map((at) => new Date(at * 1_000).toLocaleTimeString("en-GB").slice(0, length));
}

/** From zero up to `least` at least, so that noise does not look like much. Lines are at 1, 2 or 5 times a power of ten,
 *  or at powers of two. */
export function linear(least, base = 10) {
  const steps = base === 2 ? [1, 2] : [1, 2, 5, 10];
  const lines = (_, __, low, high) => {
    const fair = (high - low) / MOST_LINES;
    const power = base ** Math.floor(Math.log(fair) / Math.log(base));
    const step = steps.map((times) => times * power).find((size) => size >= fair);
    return Array.from({ length: Math.floor(high / step) + 1 }, (_, at) => at * step);
  };
  return { scale: { range: (_, __, most) => [0, Math.max(least, (most ?? 0) * 1.15)] }, lines };
}

/** Whole powers of ten, for what differs by factors: times of which a few are long. `least` and `most` are shown in any
 *  case. */
export function logarithmic(least, most) {
  const power = (number, round) => 10 ** round(Math.log10(number));
  const range = (_, low, high) => [
    power(Math.min(low || least, least), Math.floor),
    power(Math.max(high || most, most), Math.ceil),
  ];
  const lines = (_, __, low, high) => {
    const found = [];
    for (let at = low; at <= high * 1.01; at *= 10) found.push(at);
    return found;
  };
  return { scale: { distr: 3, range }, lines };
}
