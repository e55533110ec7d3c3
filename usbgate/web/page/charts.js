// The charts of a sensor in a chosen period: one for each field and device. What is not a number has a list of changes.

import { Problem, get } from "./api.js";
import { addReading, bySeries } from "./buckets.js";
import { Chart } from "./chart.js";
import { arrange, el, setText, table } from "./dom.js";
import { fieldLabel, fieldValue, time } from "./format.js";
import { spansOf } from "./pastalarms.js";
import { store } from "./store.js";
import { problemText, t } from "./words.js";

const SECOND = 1000; // ms
const WIDTHS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 604_800];
const POINTS = 360; // the most intervals in a chart; more would not be visible
const MAX_TEXTS = 2_000; // readings of a text field that are searched for changes
const MAX_CHANGES = 30;

/** The shortest interval of `WIDTHS`, in ms, of which at most `POINTS` fit into a span. */
function widthFor(span) {
  return (WIDTHS.find((width) => span / (width * SECOND) <= POINTS) ?? WIDTHS.at(-1)) * SECOND;
}

export class Charts {
  /** Of a sensor by its id, in a `Range`. */
  constructor(id, range) {
    this.id = id;
    this.range = range;
    this.charts = new Map(); // by field and device: {field, device, chart, buckets, node}
    this.alarms = []; // in the period
    this.texts = new Map(); // by field: its readings, oldest first
    this.loads = 0; // counts loads: only the last one is shown
    this.trouble = el("p", { class: "problem", role: "status", hidden: true });
    this.plots = el("div", { class: "charts" });
    this.changes = el("div", { class: "changes" });
    this.node = el("div", {}, this.trouble, this.plots);
  }

  get isEmpty() {
    return this.charts.size === 0;
  }

  async load() {
    const sensor = store.sensors.get(this.id);
    if (sensor === undefined) return;
    this.loads += 1;
    const { loads } = this;
    const [from, to] = this.range.extent();
    const width = widthFor(to - from);
    const span = this.range.query();
    try {
      const of = { sensor: this.id, ...span };
      const { buckets } = await get("readings", { ...of, bucket: `${width / SECOND}s` });
      const { alarms } = await get("alarms/history", of);
      const texts = sensor.fields.filter((field) => field.value === null);
      const readings = await Promise.all(texts.map((field) => this.loadTexts(field, span)));
      if (loads !== this.loads) return;
      this.trouble.hidden = true;
      this.width = width;
      this.alarms = alarms;
      this.texts = new Map(texts.map(({ field }, index) => [field, readings[index]]));
      this.show(bySeries(buckets));
      this.showChanges();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.trouble.hidden = false;
      setText(this.trouble, problemText(problem));
    }
  }

  show(series) {
    const sensor = store.sensors.get(this.id);
    const shown = new Map();
    const add = (field, device) => {
      const key = `${field} ${device}`;
      shown.set(key, this.charts.get(key) ?? this.make(field, device));
    };
    for (const { field, value } of sensor.fields) if (value !== null) add(field, sensor.device);
    for (const [field, devices] of series) for (const device of devices.keys()) add(field, device);
    for (const [key, { chart }] of this.charts) if (!shown.has(key)) chart.close();
    this.charts = shown;
    const several = new Set([...shown.values()].map(({ device }) => device)).size > 1;
    for (const each of shown.values()) {
      each.buckets = series.get(each.field)?.get(each.device) ?? [];
      const label = fieldLabel(store.field(this.id, each.field));
      setText(each.heading, several ? `${label} · ${each.device}` : label);
    }
    arrange(this.plots, [...shown.values()].map(({ node }) => node));
    this.draw();
  }

  make(field, device) {
    const chart = new Chart((from, to) => this.range.zoom(from, to));
    const heading = el("h3");
    return { field, device, chart, heading, buckets: [], node: el("div", {}, heading, chart.node) };
  }

  draw() {
    if (this.width === undefined) return;
    const [from, to] = this.range.extent();
    for (const { field, device, chart, buckets } of this.charts.values()) {
      chart.field = store.field(this.id, field);
      const spans = spansOf(this.alarms, { sensor: this.id, field, device }, to);
      chart.show(buckets, spans, this.width, from, to);
    }
  }

  /** Record an alarm that changed: its newest span, in which it is now. */
  addAlarm(alarm) {
    const known = this.alarms.find(({ id }) => id === alarm.id);
    const [span] = known?.spans ?? [];
    if (span && (span.until === null || alarm.ended !== null)) span.until = alarm.ended;
    else if (known) known.spans.unshift({ since: new Date(store.now()).toISOString(), until: null });
    this.draw();
  }

  /** Add the readings of a report to what is shown. */
  addReport({ device, at, values }) {
    if (this.range.custom || this.width === undefined) return;
    const [from] = this.range.extent();
    for (const [field, value] of Object.entries(values)) {
      const shown = this.charts.get(`${field} ${device}`);
      // A number whose spelling is kept comes as a text: "21.5C".
      const number = Number.parseFloat(value);
      if (shown && !Number.isNaN(number)) {
        addReading(shown.buckets, this.width, Date.parse(at), number, from);
        this.grown = true;
      }
      const texts = this.texts.get(field);
      const isShown = texts && device === store.sensors.get(this.id).device;
      if (isShown && typeof value === "string" && texts.at(-1)?.text !== value) {
        texts.push({ at, value: null, text: value });
        this.showChanges();
      }
    }
  }

  /** Draw when there is a new reading, and whenever time has moved the charts visibly. */
  tick() {
    if (this.range.custom || this.width === undefined) return;
    const [, to] = this.range.extent();
    if (!this.grown && to - (this.drawn ?? 0) < this.width / 2) return;
    this.grown = false;
    this.drawn = to;
    this.draw();
  }

  async loadTexts(field, span) {
    const query = { sensor: this.id, field: field.field, ...span, limit: MAX_TEXTS };
    const { device } = store.sensors.get(this.id);
    const readings = (await get("readings", query)).readings.filter((each) => each.device === device);
    // The newest reading may not be in the database yet.
    const last = readings.at(-1)?.at ?? span.since;
    if (span.until === null && field.at > last) readings.push({ ...field });
    return readings;
  }

  showChanges() {
    const lists = [...this.texts].map(([field, readings]) => {
      const changes = readings.filter((each, index) => index === 0 || textOf(each) !== textOf(readings[index - 1]));
      const rows = changes
        .slice(-MAX_CHANGES)
        .reverse()
        .map((each) => [time(Date.parse(each.at)), textOf(each)]);
      const title = t("changes", { field: fieldLabel(store.field(this.id, field)) });
      const none = el("p", { class: "empty" }, t("changes.empty"));
      return el("div", {}, el("h3", {}, title), rows.length ? table(title, [t("at"), t("value")], rows) : none);
    });
    arrange(this.changes, lists);
  }

  repaint() {
    for (const { chart } of this.charts.values()) chart.repaint();
  }

  close() {
    this.loads += 1;
    for (const { chart } of this.charts.values()) chart.close();
  }
}

function textOf(reading) {
  return fieldValue({ ...reading, decimals: null });
}
