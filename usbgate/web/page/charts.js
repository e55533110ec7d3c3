// The charts of a sensor in a chosen period, one for each field and device: a line for numbers, a bar for states.

import { Problem, get } from "./api.js";
import { addReading, bySeries } from "./buckets.js";
import { Chart } from "./chart.js";
import { arrange, el, setText } from "./dom.js";
import { fieldLabel } from "./format.js";
import { spansOf } from "./pastalarms.js";
import { isOld } from "./sensortext.js";
import { StateBar, addState } from "./states.js";
import { store } from "./store.js";
import { problemText, t } from "./words.js";

const SECOND = 1000; // ms
const WIDTHS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 604_800];
const POINTS = 360; // the most intervals in a chart; more would not be visible
const MAX_STATES = 2_000; // in a bar
const LAG = 5_000; // ms until a reading is in the database

/** The shortest interval of `WIDTHS`, in ms, of which at most `POINTS` fit into a span. */
function widthFor(span) {
  return (WIDTHS.find((width) => span / (width * SECOND) <= POINTS) ?? WIDTHS.at(-1)) * SECOND;
}

/** Whether a field has states, and no numbers. */
function hasStates(field) {
  return field.states || field.value === null;
}

export class Charts {
  /** Of a sensor by its id, in a `Range`. */
  constructor(id, range) {
    this.id = id;
    this.range = range;
    this.charts = new Map(); // by field and device: {field, device, chart, data, heading, node}
    this.alarms = []; // in the period
    this.recent = []; // reports, with when they were received; the database may not have them yet
    this.loads = 0; // counts loads: only the last one is shown
    this.trouble = el("p", { class: "problem", role: "status", hidden: true });
    this.plots = el("div", { class: "charts" });
    this.node = el("div", {}, this.trouble, this.plots);
  }

  /** Whether there is a line, in which one can zoom. */
  get hasLines() {
    return [...this.charts.values()].some(({ states, data }) => !states && data.length > 0);
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
      const series = bySeries(buckets);
      for (const { field } of sensor.fields.filter(hasStates)) series.set(field, await this.loadStates(of, field));
      if (loads !== this.loads) return;
      this.trouble.hidden = true;
      this.width = width;
      this.alarms = alarms;
      this.show(series);
      for (const { report } of this.recent) this.add(report, true);
      // A report that came just before this view was made is not in the database yet, nor among the recent ones.
      const { device, fields } = store.sensors.get(this.id) ?? sensor;
      for (const { field, value, text, at } of fields) this.add({ device, at, values: { [field]: text ?? value } }, true);
      this.draw();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.trouble.hidden = false;
      setText(this.trouble, problemText(problem));
    }
  }

  /** Fetch the states of a field, by device. */
  async loadStates(of, field) {
    const { states } = await get("states", { ...of, field, limit: MAX_STATES });
    const devices = new Map();
    for (const { since, until, device, value, text } of states) {
      if (!devices.has(device)) devices.set(device, []);
      devices.get(device).push({ since: Date.parse(since), until: Date.parse(until), value, text });
    }
    return devices;
  }

  show(series) {
    const sensor = store.sensors.get(this.id);
    const shown = new Map();
    const add = (field, device) => {
      const key = `${field} ${device}`;
      const states = hasStates(store.field(this.id, field));
      const before = this.charts.get(key);
      shown.set(key, before && before.states === states ? before : this.make(field, device, states));
    };
    for (const { field } of sensor.fields) add(field, sensor.device);
    for (const [field, devices] of series) for (const device of devices.keys()) add(field, device);
    for (const [key, each] of this.charts) if (shown.get(key) !== each) each.chart.close();
    this.charts = shown;
    const several = new Set([...shown.values()].map(({ device }) => device)).size > 1;
    for (const each of shown.values()) {
      each.data = series.get(each.field)?.get(each.device) ?? [];
      const label = fieldLabel(store.field(this.id, each.field));
      setText(each.heading, several ? `${label} · ${each.device}` : label);
    }
    arrange(this.plots, [...shown.values()].map(({ node }) => node));
  }

  make(field, device, states) {
    const chart = states ? new StateBar() : new Chart((from, to) => this.range.zoom(from, to));
    const heading = el("h3");
    return { field, device, states, chart, heading, data: [], node: el("div", {}, heading, chart.node) };
  }

  draw() {
    if (this.width === undefined) return;
    const [from, to] = this.range.extent();
    const sensor = store.sensors.get(this.id);
    for (const { field, device, states, chart, data } of this.charts.values()) {
      chart.field = store.field(this.id, field);
      const spans = spansOf(this.alarms, { sensor: this.id, field, device }, to);
      if (states) {
        // What was read last still holds, unless it is old.
        chart.show(data, spans, from, to, this.range.custom === null && device === sensor.device && !isOld(sensor));
        continue;
      }
      chart.show(data, spans, this.width, from, to);
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

  /** Add a report that was just received. */
  addReport(report) {
    const now = performance.now();
    this.recent = [...this.recent.filter(({ received }) => now - received < LAG), { report, received: now }];
    this.add(report, false);
  }

  /** Add the readings of a report to what is shown, which may have them already if they are `repeated`. */
  add({ device, at, values }, repeated) {
    if (this.range.custom || this.width === undefined) return;
    const [from] = this.range.extent();
    for (const [field, value] of Object.entries(values)) {
      const shown = this.charts.get(`${field} ${device}`);
      if (shown === undefined) continue;
      this.grown = true;
      const isNumber = typeof value === "number";
      if (shown.states) {
        addState(shown.data, { value: isNumber ? value : null, text: isNumber ? null : value }, Date.parse(at));
        continue;
      }
      // A number whose spelling is kept comes as a text: "21.5C".
      const number = Number.parseFloat(value);
      if (!Number.isNaN(number)) addReading(shown.data, this.width, Date.parse(at), number, from, repeated);
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

  repaint() {
    for (const { chart } of this.charts.values()) chart.repaint();
  }

  close() {
    this.loads += 1;
    for (const { chart } of this.charts.values()) chart.close();
  }
}
