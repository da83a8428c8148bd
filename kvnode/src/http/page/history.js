// The samples of the last ten minutes, as columns: what the charts draw.
//
// A node that keeps none answers 404; then there is nothing to ask for again.

import { json, Refused } from "./ask.js";

const MOST = 600;
const NAMES = [
  "reads",
  "writes",
  "read_p50_us",
  "read_p99_us",
  "write_p50_us",
  "write_p99_us",
  "lag_ms",
  "log_bytes",
  "lmdb_bytes",
  "memory_bytes",
];

/** Answers without a sample, one after the other, behind which it is asked for everything: the node's clock may have been
 *  set back, and what is behind the last sample may be hours away. */
const MOST_EMPTY = 5;

let samples = [];
let empty = 0;

/** Fetches what came since the last time; null if this node keeps no history. */
export async function fetchHistory() {
  const last = empty < MOST_EMPTY ? samples.at(-1)?.at_ms : undefined;
  const { every_ms: every, samples: later } = await fetched(last);
  if (later === null) return null;
  empty = later.length ? 0 : empty + 1;
  if (last === undefined) samples = [];
  samples = [...samples, ...later].slice(-MOST);
  return columns(every);
}

async function fetched(last) {
  try {
    return await json(last === undefined ? "/status/history" : `/status/history?after=${last}`);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return { samples: null };
    throw error;
  }
}

/** One array a name, with a hole where samples are missing. */
function columns(every) {
  const found = { seconds: [], ...Object.fromEntries(NAMES.map((name) => [name, []])) };
  const push = (at, sample) => {
    found.seconds.push(at / 1_000);
    for (const name of NAMES) found[name].push(sample?.[name] ?? null);
  };
  let before = null;
  for (const sample of samples) {
    if (before !== null && sample.at_ms - before > 3 * every) push(before + every, null);
    push(sample.at_ms, sample);
    before = sample.at_ms;
  }
  return found;
}
