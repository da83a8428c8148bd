// Six small charts of this node. uPlot draws; names, figures and their signs are text beside it.
//
// The lines of a chart differ in colour and in dashes. The pointer over one chart shows the figures of that moment in
// all of them; without it they are the newest.

import { clockTimes, lastMinutes, linear, logarithmic } from "./axes.js";
import { fetchHistory } from "./history.js";
import { count, duration, micros, size } from "./units.js";
import { el } from "./visible.js";

const HEIGHT = 132;
const TIMES = logarithmic(10, 1_000);
const BYTES = linear(1 << 20, 2);
const CHARTS = [
  chart("Ops a second", count, linear(10), { reads: "reads", writes: "writes" }),
  chart("Time of a read", micros, TIMES, { read_p50_us: "p50", read_p99_us: "p99" }),
  chart("Time of a write", micros, TIMES, { write_p50_us: "p50", write_p99_us: "p99" }),
  chart("Lag behind the primary", duration, linear(300), { lag_ms: "lag" }),
  chart("On disk", size, BYTES, { log_bytes: "log", lmdb_bytes: "LMDB" }),
  chart("Memory", size, BYTES, { memory_bytes: "resident" }),
];

const grid = document.getElementById("chart-grid");
const note = document.getElementById("charts-note");
let charts = [];
let isAvailable = true;

/** Fetches and draws once. */
export async function refresh() {
  if (!isAvailable) return;
  const history = await fetchHistory();
  isAvailable = history !== null;
  note.hidden = isAvailable;
  if (!isAvailable) {
    note.textContent = "Charts are not available: this node keeps no history.";
    return;
  }
  if (!charts.length) charts = CHARTS.map(make);
  for (const chart of charts) draw(chart, history);
}

/** `lines` names the columns to draw, and what to call them. */
function chart(title, unit, across, lines) {
  return { title, unit, across, lines: Object.entries(lines) };
}

function make(spec) {
  const figures = spec.lines.map(() => el("b", {}, "–"));
  const names = spec.lines.map(([, name], index) =>
    el("span", { className: `line line-${index}` }, el("i", { ariaHidden: "true" }), `${name} `, figures[index]),
  );
  const canvas = el("div", { className: "canvas", ariaHidden: "true" });
  const caption = el("figcaption", {}, el("span", { className: "title" }, spec.title), ...names);
  grid.append(el("figure", { className: "card chart" }, caption, canvas));
  const made = { spec, figures, canvas, data: null };
  made.plot = plot(made);
  new ResizeObserver(() => made.plot.setSize({ width: canvas.clientWidth, height: HEIGHT })).observe(canvas);
  return made;
}

function plot(chart) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const font = "11px system-ui, sans-serif";
  const options = {
    width: chart.canvas.clientWidth || 300,
    height: HEIGHT,
    padding: [10, 10, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: "kv" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { range: lastMinutes }, y: chart.spec.across.scale },
    axes: [
      { ...axis, font, size: 22, space: 80, values: (_, times) => clockTimes(times) },
      {
        ...axis,
        font,
        size: 62,
        space: 32,
        splits: chart.spec.across.lines,
        filter: (_, numbers) => numbers,
        values: (_, numbers) => numbers.map((number) => (number === 0 ? "0" : chart.spec.unit(number))),
      },
    ],
    series: [
      {},
      ...chart.spec.lines.map((_, index) => ({
        stroke: colour(`--line-${index}`),
        fill: index === 0 ? colour("--fill-0") : undefined,
        width: 1.5,
        dash: index ? [5, 3] : undefined,
        points: { show: false },
      })),
    ],
    hooks: { setCursor: [(drawn) => showFigures(chart, drawn.cursor.idx)] },
  };
  return new globalThis.uPlot(options, chart.data ?? [[], ...chart.spec.lines.map(() => [])], chart.canvas);
}

function draw(chart, history) {
  chart.data = [history.seconds, ...chart.spec.lines.map(([name]) => history[name])];
  chart.plot.setData(chart.data);
  showFigures(chart, chart.plot.cursor.idx);
}

function showFigures(chart, index) {
  if (!chart.data) return;
  const at = index ?? chart.data[0].length - 1;
  chart.figures.forEach((node, line) => (node.textContent = chart.spec.unit(chart.data[line + 1][at])));
}

function remake() {
  for (const chart of charts) {
    chart.plot.destroy();
    chart.plot = plot(chart);
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", remake);
