// A chart of one field of one device, drawn by uPlot: the mean as a line, and a band from minimum to maximum. Above it
// are the threshold of the alarm, the times when its condition held, and a flag at the beginning of each.

import { middle, summary, withoutGaps } from "./buckets.js";
import { el, placed, setText } from "./dom.js";
import { conditionText, fieldLabel, number, rough, ticks, time, withUnit } from "./format.js";
import { marks } from "./marks.js";
import { t } from "./words.js";

const HEIGHT = 260; // px
const THRESHOLD = /^[<>]=? (\S+)$/; // of a condition

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
  constructor(zoomed) {
    this.zoomed = zoomed;
    this.field = null;
    this.buckets = [];
    this.spans = [];
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

  get threshold() {
    const operand = Number(THRESHOLD.exec(this.field.alarm ?? "")?.[1] ?? NaN);
    return Number.isNaN(operand) ? null : operand;
  }

  /** Show buckets of `width` ms between two times, and the [from, to] in which the condition of its alarm held. */
  async show(buckets, spans, width, from, to) {
    this.buckets = buckets;
    this.spans = spans;
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
    this.host.setAttribute("aria-label", t("chart.label", { field: fieldLabel(this.field), min, avg, max }));
    if (this.plot === null) this.plot = this.make();
    this.plot.batch(() => {
      this.plot.setData(this.columns());
      this.plot.setScale("x", { min: this.range[0] / 1000, max: this.range[1] / 1000 });
    });
    if (this.plot.cursor.idx === null || this.plot.cursor.idx === undefined) this.showSummary();
  }

  showSummary() {
    const sums = summary(this.buckets);
    if (sums === null) return;
    const [min, avg, max] = [sums.min, sums.avg, sums.max].map((value) => this.text(value));
    const parts = [`${t("least")}\u00a0${min}`, `${t("mean")}\u00a0${avg}`, `${t("most")}\u00a0${max}`];
    if (this.field.alarm) parts.push(`${t("state.alarm")} ${conditionText(this.field, this.field.alarm)}`);
    setText(this.readout, parts.join(" · "));
  }

  /** The means with their times, interrupted where there are gaps. `shown` has the bucket of each. */
  columns() {
    const columns = [[], []];
    this.shown = [];
    for (const part of withoutGaps(this.buckets)) {
      if (this.shown.length) {
        columns[0].push(middle(part[0], this.width, ...this.range) / 1000 - 0.001);
        columns[1].push(null);
        this.shown.push(null);
      }
      for (const bucket of part) {
        columns[0].push(middle(bucket, this.width, ...this.range) / 1000);
        columns[1].push(bucket.avg);
        this.shown.push(bucket);
      }
    }
    return columns;
  }

  /** The range of the axis: all values, and the threshold if it was crossed or is not far away. */
  extent() {
    const { min, max } = summary(this.buckets) ?? { min: 0, max: 1 };
    const { threshold } = this;
    const near = max - min || Math.abs(max) * 0.1;
    const shown = threshold !== null && (this.spans.length > 0 || (threshold > min - near && threshold < max + near));
    const [low, high] = shown ? [Math.min(min, threshold), Math.max(max, threshold)] : [min, max];
    const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 1;
    return [low - room, high + room];
  }

  make() {
    const [accent, grid, quiet] = ["--accent", "--line", "--quiet"].map(colour);
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: quiet, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    const { uPlot } = this;
    this.marks = el("div", { class: "marks", "aria-hidden": "true" });
    const plot = new uPlot(
      {
        width: this.host.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { size: 7 } },
        scales: { x: { time: true }, y: { range: () => this.extent() } },
        series: [{}, { stroke: accent, width: 2, points: { size: 5, fill: accent } }],
        axes: [
          { ...axis, size: timesHeight, values: (_, splits, __, ___, step) => ticks(splits.map((at) => at * 1000), step) },
          { ...axis, size: 64, values: (_, splits, __, ___, step) => splits.map((value) => this.label(value, step)) },
        ],
        hooks: {
          drawAxes: [(drawn) => this.drawBand(drawn)],
          draw: [(drawn) => this.mark(drawn)],
          setCursor: [(moved) => this.showPoint(moved)],
          setSelect: [(selected) => this.select(selected)],
        },
      },
      this.columns(),
      this.host,
    );
    plot.over.prepend(this.marks);
    return plot;
  }

  /** Draw a bar from minimum to maximum for each interval, none thinner than can be seen. */
  drawBand({ ctx, bbox, valToPos }) {
    const [from, to] = this.range;
    const x = (at) => Math.round(valToPos(Math.min(Math.max(at, from), to) / 1000, "x", true));
    const y = (value) => Math.round(valToPos(value, "y", true));
    const thin = 2 * devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.beginPath();
    for (const { at, min, max } of this.buckets) {
      const left = Math.min(x(at), bbox.left + bbox.width - thin);
      const [width, height] = [x(at + this.width) - left, y(min) - y(max)];
      ctx.rect(left, y(max) - (height < thin ? thin / 2 : 0), Math.max(width, thin), Math.max(height, thin));
    }
    ctx.fillStyle = colour("--band");
    ctx.fill();
    ctx.restore();
  }

  /** Place the marks of the alarm. */
  mark({ over, valToPos }) {
    const held = marks(this.spans, this.range, (at) => valToPos(at / 1000, "x"), over.clientWidth);
    const { threshold } = this;
    const top = threshold === null ? -1 : valToPos(threshold, "y");
    const line = placed(el("div", { class: "threshold" }), { top: `${top}px` });
    this.marks.replaceChildren(...held, ...(top >= 0 && top <= over.clientHeight ? [line] : []));
  }

  /** Show the values under the pointer. */
  showPoint(plot) {
    const bucket = this.shown?.[plot.cursor.idx ?? -1] ?? null;
    if (bucket === null) return this.showSummary();
    const { at, min, avg, max } = bucket;
    const range = min === max ? "" : ` (${this.text(min)} – ${this.text(max)})`;
    return setText(this.readout, `${time(at)} · ${this.text(avg)}${range}`);
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

/** The height in px of the labels of an axis. */
function timesHeight(_, labels) {
  return labels?.[0]?.includes("\n") ? 46 : 32;
}

