// The cluster at a glance: every node of the map, shard by shard, asked for anew each second.
//
// Rows are made once for a map and then only their texts change, so that focus and selection stay where they are. What
// is good or bad is said by a word and a sign, and by colour only besides.

import { json } from "./ask.js";
import { judge, warnings } from "./judge.js";
import { count, duration, many, size } from "./units.js";
import { el } from "./visible.js";

const SLOTS = 16_384;
const SIGNS = { good: "✓", warn: "!", bad: "✕" };
const COLUMNS = ["Role", "State", "Lag", "Position", "Log", "LMDB", "Entries", "Up"];

const at = (id) => document.getElementById(id);
/** Identity of the map that the table was made for, and the row of each address. */
let madeFor = "";
const rows = new Map();
let map = { shards: [] };

/** Asks and shows once. */
export async function refresh() {
  const status = await json("/cluster/status");
  if (status.map_version !== madeFor) {
    map = await json("/cluster/map");
    make();
    madeFor = map.identity;
  }
  show(status);
}

/** Shows that nothing is known any more. */
export function forget() {
  at("cluster").classList.add("stale");
}

function make() {
  rows.clear();
  const table = at("nodes");
  for (const body of [...table.tBodies]) body.remove();
  at("slots").replaceChildren();
  map.shards.forEach((shard, index) => {
    const body = el("tbody", {}, shardRow(shard, index));
    for (const node of [shard.primary, ...shard.replicas]) {
      const row = nodeRow(node.address, node === shard.primary ? "primary" : "replica");
      rows.set(node.address, row);
      body.append(row.line);
    }
    table.append(body);
    at("slots").append(...slotBars(shard, index));
  });
}

function shardRow(shard, index) {
  const slots = shard.slots.map((range) => range.replace("-", "–")).join(", ");
  const share = ranges(shard).reduce((sum, [from, to]) => sum + to - from + 1, 0);
  const facts = `slots ${slots} · ${count(share)} of ${count(SLOTS)} · ${many(shard.replicas.length, "replica")}`;
  const name = el("span", { className: `shard-name tint-${index % 6}` }, shard.name);
  const head = el("th", { scope: "rowgroup", colSpan: 9 }, name, " ", el("span", { className: "muted" }, facts));
  return el("tr", { className: "shard" }, head);
}

function nodeRow(address, role) {
  const link = el("a", { href: `${location.protocol}//${address}/`, className: "mono" }, address);
  const head = el("th", { scope: "row" }, link);
  const cells = COLUMNS.map((name) => {
    const cell = el("td", { className: COLUMNS.indexOf(name) > 1 ? "number" : "" });
    cell.dataset.name = name;
    return cell;
  });
  return { line: el("tr", { className: "node" }, head, ...cells), head, cells, role, shown: [] };
}

const ranges = (shard) =>
  shard.slots.map((range) => {
    const [from, to = from] = range.split("-").map(Number);
    return [from, to];
  });

function slotBars(shard, index) {
  return ranges(shard).map(([from, to]) => {
    const bar = el("span", { className: `slot-bar tint-${index % 6}`, title: `${shard.name}: slots ${from}–${to}` });
    bar.style.left = `${(from / SLOTS) * 100}%`;
    bar.style.width = `${((to - from + 1) / SLOTS) * 100}%`;
    return bar;
  });
}

function show(status) {
  at("cluster").classList.remove("stale");
  const judged = status.nodes.map((node) => [node, judge(node)]);
  for (const [node, verdict] of judged) showNode(node, verdict);
  showGlance(status, judged);
  showWarnings(warnings(status.nodes, status.map_version));
}

function showNode(node, verdict) {
  const row = rows.get(node.address);
  if (!row) return;
  const isReplica = (node.role ?? row.role) === "replica";
  const known = node.durable !== undefined;
  const state = `${SIGNS[verdict.kind]} ${verdict.word}`;
  const texts = [
    node.role ?? row.role,
    state,
    isReplica && known ? lag(node) : "–",
    node.visible ?? "–",
    size(node.log_bytes),
    size(node.lmdb_bytes),
    count(node.entries),
    duration(node.uptime_seconds && node.uptime_seconds * 1_000),
  ];
  row.line.className = `node ${verdict.kind}`;
  texts.forEach((text, index) =>
    write(row, index, text + (index === 1 ? verdict.why : ""), () => {
      if (index !== 1) return [text];
      const pill = el("span", { className: `pill ${verdict.kind}` }, state);
      return verdict.why ? [pill, " ", el("span", { className: "why" }, verdict.why)] : [pill];
    }),
  );
}

/** Changes a cell only if it would say something else. */
function write(row, index, text, nodes) {
  if (row.shown[index] === text) return;
  row.shown[index] = text;
  row.cells[index].replaceChildren(...nodes());
}

function lag(node) {
  const records = node.lag_records ? ` · ${many(node.lag_records, "record")}` : "";
  return duration(node.lag_ms) + records;
}

function showGlance({ map_version: version }, judged) {
  const good = judged.filter(([, verdict]) => verdict.kind !== "bad").length;
  const bad = judged.length - good;
  const writable = map.shards.filter((shard) => isGood(judged, shard.primary.address)).length;
  const primaries = judged.filter(([node]) => node.role === "primary");
  const entries = primaries.reduce((sum, [node]) => sum + (node.entries ?? 0), 0);
  replaceIfOther(at("glance"), [
    tile("Nodes", `${good} of ${judged.length} up`, bad ? "bad" : "good"),
    tile(
      "Shards that take writes",
      `${writable} of ${map.shards.length}`,
      writable < map.shards.length ? "bad" : "good",
    ),
    lagTile(judged),
    tile("Entries in LMDB", count(entries), ""),
    tile("Map", version, ""),
  ]);
  const down = judged
    .filter(([, verdict]) => verdict.kind === "bad")
    .map(([node, { word }]) => `${node.address}: ${word}`);
  replaceIfOther(at("told"), [down.join(", ")]);
}

/** Of all replicas of the map: one that is down has a lag too, only that nobody knows it. */
function lagTile(judged) {
  const replicas = judged.filter(([node]) => rows.get(node.address)?.role === "replica");
  const lags = replicas.map(([node]) => node.lag_ms).filter((ms) => ms != null);
  const unknown = replicas.length - lags.length;
  const texts = [lags.length ? duration(Math.max(...lags)) : "", unknown ? `${many(unknown, "replica")} not known` : ""];
  const isGood = unknown === 0 && Math.max(0, ...lags) < 1_000;
  return tile("Largest lag", texts.filter(Boolean).join(" · ") || "–", isGood ? "good" : "warn");
}

const isGood = (judged, address) =>
  judged.some(([node, verdict]) => node.address === address && verdict.kind === "good");

function tile(name, text, kind) {
  const sign = kind ? el("span", { className: "sign", ariaHidden: "true" }, `${SIGNS[kind]} `) : "";
  return el("div", { className: `tile ${kind}` }, el("dt", {}, name), el("dd", {}, sign, text));
}

const showWarnings = (texts) =>
  replaceIfOther(
    at("warnings"),
    texts.map((text) => el("li", {}, el("span", { ariaHidden: "true" }, "! "), text)),
  );

/** Only if it says something else: what is selected stays so, and nothing is read aloud twice. */
function replaceIfOther(node, children) {
  const text = children.map((child) => child.textContent ?? child).join("\n");
  if (node.dataset.shown === text) return;
  node.dataset.shown = text;
  node.replaceChildren(...children);
}
