// What to make of a node's status: pure, from figures to one of three words, and why.

/** Lag of a replica in ms from which a person should know of it, and from which it is serious. A replica at rest, whose
 *  pulls wait for 250 ms, shows up to twice that. */
const BEHIND = 1_000;
const FAR_BEHIND = 5_000;

/** `kind` is good, warn or bad; `word` is short, `why` says more or is empty. */
export function judge(node) {
  if (node.durable === undefined) {
    return { kind: "bad", word: "down", why: (node.state ?? "").replace(/^no answer: /, "") };
  }
  if (node.recovering) return { kind: "warn", word: "recovering", why: node.state };
  if (node.state !== "ready") return { kind: "bad", word: "not ready", why: node.state };
  if (node.damaged > 0) return { kind: "bad", word: "damaged", why: `${node.damaged} stored entries are damaged` };
  return node.role === "replica" ? judgeReplica(node) : { kind: "good", word: "ready", why: "" };
}

function judgeReplica(node) {
  const why = node.pull_trouble ?? "";
  if (node.lag_ms == null) return { kind: "warn", word: "never pulled", why };
  if (node.lag_ms >= FAR_BEHIND) return { kind: "bad", word: "far behind", why };
  if (node.lag_ms >= BEHIND) return { kind: "warn", word: "behind", why };
  return { kind: "good", word: "ready", why };
}

/** Texts about what no single row shows; `here` is the identity of the map in force on this node. */
export function warnings(nodes, here) {
  const texts = [];
  const open = nodes.filter((node) => node.insecure_no_auth).map((node) => node.address);
  if (open.length) texts.push(`Anyone on the network may read and write: ${open.join(", ")} (insecure_no_auth)`);
  for (const { address, tokens_trouble: why } of nodes) {
    if (why) texts.push(`${address} goes by older tokens than those of its file: ${why}`);
  }
  for (const { address, certificates_trouble: why } of nodes) {
    if (why) texts.push(`Certificates of ${address}: ${why}`);
  }
  for (const node of nodes) texts.push(...mapWarning(node, here), ...replicaWarnings(node, nodes));
  return texts;
}

function mapWarning(node, here) {
  const other = node.map_version;
  if (other === undefined || other === here) return [];
  const [mine, theirs] = [here, other].map((identity) => Number(identity.split("-")[0]));
  if (mine === theirs)
    return [`Map conflict: ${node.address} has another map of the same version (${other}, here ${here})`];
  return [`${node.address} has ${theirs > mine ? "a newer" : "an older"} map (${other}, here ${here})`];
}

/** Replicas that answer us and yet do not pull from their primary. */
function replicaWarnings(node, nodes) {
  const answers = (address) => nodes.some((other) => other.address === address && other.durable !== undefined);
  return (node.replicas ?? [])
    .filter((replica) => !replica.connected && answers(replica.address))
    .map((replica) => `${replica.address} has not pulled from its primary ${node.address} lately`);
}
