// Six small charts of this node. uPlot draws; names, figures and their signs are text beside it.
//
// The lines of a chart differ in colour and in dashes. The pointer over one chart shows the figures of that moment in
// all of them; without it they are the newest.

import { fetchHistory } from "./history.js";
import { count, duration, micros, size } from "./units.js";
import { el } from "./visible.js";

const LEAST_SECONDS = 60;
const MOST_SECONDS = 600;
const HEIGHT = 132;
/** `least` is how far up a chart reaches at least, so that noise does not look like much. */
const CHARTS = [
  {
    title: "Ops a second",
    unit: count,
    least: 10,
    lines: [
      ["reads", "reads"],
      ["writes", "writes"],
    ],
  },
  {
    title: "Time of a read",
    unit: micros,
    least: 100,
    lines: [
      ["read_p50_us", "p50"],
      ["read_p99_us", "p99"],
    ],
  },
  {
    title: "Time of a write",
    unit: micros,
    least: 100,
    lines: [
      ["write_p50_us", "p50"],
      ["write_p99_us", "p99"],
    ],
  },
  { title: "Lag behind the primary", unit: duration, least: 300, lines: [["lag_ms", "lag"]] },
  {
    title: "On disk",
    unit: size,
    least: 1 << 20,
    lines: [
      ["log_bytes", "log"],
      ["lmdb_bytes", "LMDB"],
    ],
  },
  { title: "Memory", unit: size, least: 1 << 20, lines: [["memory_bytes", "resident"]] },
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

function make(spec) {
  const figures = spec.lines.map(() => el("b", {}, "–"));
  const names = spec.lines.map(([, name], index) =>
    el("span", { className: `line line-${index}` }, el("i", { ariaHidden: "true" }), `${name} `, figures[index]),
  );
  const canvas = el("div", { className: "canvas", ariaHidden: "true" });
  const caption = el("figcaption", {}, el("span", { className: "title" }, spec.title), ...names);
  grid.append(el("figure", { className: "card chart" }, caption, canvas));
  const chart = { spec, figures, canvas, data: null };
  chart.plot = plot(chart);
  new ResizeObserver(() => chart.plot.setSize({ width: canvas.clientWidth, height: HEIGHT })).observe(canvas);
  return chart;
}

function plot(chart) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const font = "11px system-ui, sans-serif";
  const options = {
    width: chart.canvas.clientWidth || 300,
    height: HEIGHT,
    legend: { show: false },
    cursor: { sync: { key: "kv" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { range: window10 },
      y: { range: (_, __, most) => [0, Math.max(chart.spec.least, (most ?? 0) * 1.15)] },
    },
    axes: [
      { ...axis, font, size: 22, space: 80, values: (_, times) => times.map(clockTime) },
      {
        ...axis,
        font,
        size: 62,
        space: 32,
        splits,
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

/** Up to the newest sample: all there is, but a minute at least, so that a young node has no points but lines. */
function window10(drawn) {
  const newest = drawn.data[0].at(-1) ?? Date.now() / 1_000;
  const known = newest - (drawn.data[0][0] ?? newest);
  return [newest - Math.min(MOST_SECONDS, Math.max(LEAST_SECONDS, known)), newest];
}

/** Three lines across, at figures that are round in what is shown. */
function splits(drawn, _, low, high) {
  const third = (high - low) / 3;
  const base = third >= 1_024 && drawn.axes[1].values(drawn, [1_024])[0].includes("KiB") ? 2 : 10;
  const power = base ** Math.floor(Math.log(third) / Math.log(base));
  const step = base === 2 ? power : [1, 2, 5, 10].map((n) => n * power).find((n) => n >= third);
  const found = [];
  for (let at = 0; at <= high && found.length < 8; at += step) found.push(at);
  return found;
}

const clockTime = (seconds) => new Date(seconds * 1_000).toLocaleTimeString("en-GB").slice(0, 5);

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
