// A chart of one field, drawn by uPlot: the mean as a line, and a band from minimum to maximum.

import { summary } from "./buckets.js";
import { el, setText } from "./dom.js";
import { fieldName, number, rough, tick, time, withUnit } from "./format.js";
import { t } from "./words.js";

const HEIGHT = 260; // px
const GAP = 8; // times the usual distance between two intervals; across a larger gap, the line is interrupted

let loading = null;

/** Load uPlot when a chart is first shown. It is not a module; it sets `window.uPlot`. */
function loadUPlot() {
  loading ??= new Promise((loaded, failed) => {
    document.head.append(el("link", { rel: "stylesheet", href: "vendor/uplot.min.css" }));
    document.head.append(el("script", { src: "vendor/uplot.min.js", load: () => loaded(window.uPlot), error: failed }));
  });
  return loading;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export class Chart {
  /** `zoomed(from, to)`, in ms, is called after a drag across the chart. */
  constructor(field, zoomed) {
    this.field = field;
    this.zoomed = zoomed;
    this.buckets = [];
    this.range = [0, 1];
    this.plot = null;
    this.host = el("div", { class: "plot", role: "img" });
    this.readout = el("p", { class: "readout" });
    this.empty = el("p", { class: "empty" }, t("chart.empty"));
    this.node = el("figure", { class: "chart" }, this.host, this.readout, this.empty);
    this.resize = new ResizeObserver(() => this.fit());
    this.resize.observe(this.host);
  }

  text(value) {
    const { decimals, unit } = this.field;
    // A mean has more digits than were measured.
    return withUnit(decimals === null ? rough(value) : number(value, decimals), unit);
  }

  /** A label of the axis, with enough digits for labels to differ. */
  label(value, step) {
    const digits = String(Number(step.toPrecision(3))).split(".")[1]?.length ?? 0;
    return withUnit(number(value, digits), this.field.unit);
  }

  /** Show buckets of `width` ms between two times. */
  async show(buckets, width, from, to) {
    this.buckets = buckets;
    this.width = width;
    this.range = [from, to];
    this.uPlot = await loadUPlot();
    this.draw();
  }

  /** Draw the buckets and the range as they are now. */
  draw() {
    if (this.uPlot === undefined || !this.node.isConnected) return;
    const sums = summary(this.buckets);
    this.empty.hidden = sums !== null;
    this.host.hidden = this.readout.hidden = sums === null;
    if (sums === null) return;
    const [min, avg, max] = [sums.min, sums.avg, sums.max].map((value) => this.text(value));
    this.host.setAttribute("aria-label", t("chart.label", { field: fieldName(this.field.field), min, avg, max }));
    if (this.plot === null) this.plot = this.make();
    this.plot.batch(() => {
      this.plot.setData(this.columns());
      this.plot.setScale("x", { min: this.range[0] / 1000, max: this.range[1] / 1000 });
    });
    if (this.plot.cursor.idx === null || this.plot.cursor.idx === undefined) this.showSummary(min, avg, max);
  }

  showSummary(min, avg, max) {
    setText(this.readout, `${t("least")} ${min} · ${t("mean")} ${avg} · ${t("most")} ${max}`);
  }

  columns() {
    const distances = this.buckets.slice(1).map((bucket, index) => bucket.at - this.buckets[index].at);
    const usual = [...distances].sort((a, b) => a - b)[Math.floor(distances.length / 2)] ?? 0;
    const columns = [[], [], [], []];
    this.buckets.forEach((bucket, index) => {
      if (index && distances[index - 1] > GAP * usual) {
        [(bucket.at - this.width / 2) / 1000, null, null, null].forEach((value, each) => columns[each].push(value));
      }
      const { at, min, avg, max } = bucket;
      [(at + this.width / 2) / 1000, max, min, avg].forEach((value, each) => columns[each].push(value));
    });
    return columns;
  }

  make() {
    const [accent, band, grid, quiet] = ["--accent", "--band", "--line", "--quiet"].map(colour);
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: quiet, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    const { uPlot } = this;
    const unseen = { stroke: "transparent", width: 0, points: { show: false } };
    return new uPlot(
      {
        width: this.host.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { size: 7 } },
        scales: { x: { time: true }, y: { range: (_, min, max) => roomy(min, max) } },
        series: [{}, unseen, unseen, { stroke: accent, width: 2, points: { size: 5, fill: accent } }],
        bands: [{ series: [1, 2], fill: band }],
        axes: [
          { ...axis, size: 32, values: (_, splits, __, ___, step) => times(splits, step) },
          { ...axis, size: 64, values: (_, splits, __, ___, step) => splits.map((value) => this.label(value, step)) },
        ],
        hooks: {
          setCursor: [(plot) => this.showPoint(plot)],
          setSelect: [(plot) => this.select(plot)],
        },
      },
      this.columns(),
      this.host,
    );
  }

  /** Show the values under the pointer. */
  showPoint(plot) {
    const { idx } = plot.cursor;
    if (idx === null || idx === undefined || plot.data[3][idx] === null) {
      const sums = summary(this.buckets);
      if (sums) this.showSummary(...[sums.min, sums.avg, sums.max].map((value) => this.text(value)));
      return;
    }
    const [at, most, least, mean] = plot.data.map((column) => column[idx]);
    const range = least === most ? "" : ` (${this.text(least)} – ${this.text(most)})`;
    setText(this.readout, `${time(at * 1000 - this.width / 2)} · ${this.text(mean)}${range}`);
  }

  select(plot) {
    const { left, width } = plot.select;
    if (width < 8) return; // a click
    const [from, to] = [left, left + width].map((x) => plot.posToVal(x, "x") * 1000);
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.zoomed(from, to);
  }

  fit() {
    if (this.plot && this.host.clientWidth) this.plot.setSize({ width: this.host.clientWidth, height: HEIGHT });
  }

  /** Draw again, with the colours of another theme. */
  repaint() {
    this.plot?.destroy();
    this.plot = null;
    this.draw();
  }

  close() {
    this.resize.disconnect();
    this.plot?.destroy();
  }
}

function times(splits, step) {
  return splits.map((at, index) => tick(at * 1000, step, index === 0));
}

/** The scale, with some room above and below, also for a constant value. */
function roomy(min, max) {
  if (min === null) return [0, 1];
  const room = (max - min) * 0.08 || Math.abs(max) * 0.1 || 1;
  return [min - room, max + room];
}
