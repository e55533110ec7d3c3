// The view of one sensor: its card, charts of a chosen period, and its latest requests.

import { Problem, csvAddress, get } from "./api.js";
import { addReading, byField } from "./buckets.js";
import { Card, sensorName } from "./cards.js";
import { Chart } from "./chart.js";
import { arrange, el, setText } from "./dom.js";
import { duration, fieldName, fieldValue, time } from "./format.js";
import { Range } from "./range.js";
import { store } from "./store.js";
import { problemText, t, word } from "./words.js";

const SECOND = 1000; // ms
const WIDTHS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 604_800];
const POINTS = 360; // the most intervals in a chart; more would not be visible
const MAX_TEXTS = 2_000; // readings of a text field that are searched for changes
const MAX_CHANGES = 30;
const MAX_REQUESTS = 12;
const SOON = 1_500; // ms until a request that just ended is in the database

/** The shortest interval of `WIDTHS`, in ms, of which at most `POINTS` fit into a span. */
function widthFor(span) {
  return (WIDTHS.find((width) => span / (width * SECOND) <= POINTS) ?? WIDTHS.at(-1)) * SECOND;
}

export class SensorView {
  constructor(id) {
    this.id = id;
    this.card = new Card(id, true);
    this.charts = new Map();
    this.texts = new Map(); // by field: its readings, oldest first
    this.range = new Range(() => this.load());
    this.loads = 0; // counts loads: only the last one is shown
    this.name = el("h1", { tabindex: -1 });
    this.place = el("p", { class: "where" });
    this.missing = el("p", { class: "empty" });
    this.changes = el("div", { class: "changes" });
    this.trouble = el("p", { class: "problem", role: "status", hidden: true });
    this.plots = el("div", { class: "charts" });
    this.csv = el("a", { class: "button", download: "" }, t("csv"));
    this.zoomOut = el("button", { type: "button", hidden: true, click: () => this.range.zoomOut() }, t("zoom.out"));
    this.hint = el("p", { class: "hint" }, t("zoom.hint"));
    this.requests = el("div", { class: "requests" });
    this.known = el(
      "div",
      { class: "known" },
      this.card.node,
      el(
        "section",
        { class: "panel", "aria-label": t("chart") },
        this.range.node,
        this.trouble,
        this.plots,
        el("div", { class: "under" }, this.hint, this.zoomOut, this.csv),
        this.changes,
      ),
      el("section", { class: "panel" }, el("h2", {}, t("requests")), this.requests),
    );
    this.node = el(
      "div",
      { class: "own" },
      el("a", { class: "back", href: "#/" }, `‹ ${t("back")}`),
      this.name,
      this.place,
      this.missing,
      this.known,
    );
    this.off = [
      store.on("sensors", () => this.update()),
      store.on("sensor", (other) => other === id && this.update()),
      store.on("reading", (reading) => reading.sensor === id && this.addReport(reading)),
      store.on("asked", (asked) => asked.id === id && this.loadRequestsSoon()),
      store.on("gap", () => {
        this.load();
        this.loadRequests();
      }),
    ];
    this.update();
    this.loadRequests();
  }

  get title() {
    const sensor = store.sensors.get(this.id);
    return `${sensor ? sensorName(sensor) : this.id} · usbgate`;
  }

  update() {
    const sensor = store.sensors.get(this.id);
    this.known.hidden = sensor === undefined;
    this.missing.hidden = sensor !== undefined;
    setText(this.name, sensor ? sensorName(sensor) : this.id);
    setText(this.missing, store.loaded ? t("missing", { id: this.id }) : t("loading"));
    if (sensor === undefined) return;
    setText(this.place, [sensor.place, sensor.name && sensor.id, sensor.device].filter(Boolean).join(" · "));
    this.card.update();
    const fields = sensor.fields.map((field) => field.field).join(" ");
    if (fields !== this.fields) {
      this.fields = fields;
      this.load();
    }
  }

  async load() {
    const sensor = store.sensors.get(this.id);
    if (sensor === undefined) return;
    this.zoomOut.hidden = this.range.custom === null;
    this.loads += 1;
    const { loads } = this;
    const [from, to] = this.range.extent();
    const width = widthFor(to - from);
    const span = { since: new Date(from).toISOString(), until: this.range.custom && new Date(to).toISOString() };
    this.csv.href = csvAddress({ sensor: this.id, ...span });
    try {
      const { buckets } = await get("readings", { sensor: this.id, ...span, bucket: `${width / SECOND}s` });
      const texts = sensor.fields.filter((field) => field.value === null);
      const readings = await Promise.all(texts.map((field) => this.loadTexts(field, span)));
      if (loads !== this.loads) return;
      this.trouble.hidden = true;
      this.width = width;
      this.show(byField(buckets));
      this.texts = new Map(texts.map(({ field }, index) => [field, readings[index]]));
      this.showChanges();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.trouble.hidden = false;
      setText(this.trouble, problemText(problem));
    }
  }

  show(buckets) {
    const sensor = store.sensors.get(this.id);
    const fields = (sensor?.fields ?? []).filter((field) => field.value !== null || buckets.has(field.field));
    const nodes = fields.map((field) => {
      if (!this.charts.has(field.field)) {
        const chart = new Chart(field, (from, to) => this.range.zoom(from, to));
        const heading = el("h3", {}, fieldName(field.field));
        this.charts.set(field.field, { chart, node: el("div", {}, heading, chart.node) });
      }
      return this.charts.get(field.field);
    });
    arrange(
      this.plots,
      nodes.map(({ node }) => node),
    );
    const [from, to] = this.range.extent();
    for (const [field, { chart }] of this.charts) {
      chart.field = fields.find((each) => each.field === field) ?? chart.field;
      chart.show(buckets.get(field) ?? [], this.width, from, to);
    }
    this.hint.hidden = fields.length === 0;
  }

  /** Add the readings of a report to what is shown. */
  addReport({ at, command, values }) {
    if (command !== null) this.loadRequestsSoon();
    if (this.range.custom || this.width === undefined) return;
    const [from] = this.range.extent();
    for (const [field, value] of Object.entries(values)) {
      const shown = this.charts.get(field);
      // A number whose spelling is kept comes as a text: "21.5C".
      const number = Number.parseFloat(value);
      if (shown && !Number.isNaN(number)) {
        addReading(shown.chart.buckets, this.width, Date.parse(at), number, from);
        this.grown = true;
      }
      const texts = this.texts.get(field);
      if (texts && typeof value === "string" && texts.at(-1)?.text !== value) {
        texts.push({ at, value: null, text: value });
        this.showChanges();
      }
    }
  }

  tick() {
    this.card.tick();
    if (this.range.custom || this.width === undefined) return;
    // Draw when there is a new reading, and whenever time has moved the chart visibly.
    const [from, to] = this.range.extent();
    if (!this.grown && to - (this.drawn ?? 0) < this.width / 2) return;
    this.grown = false;
    this.drawn = to;
    for (const { chart } of this.charts.values()) {
      chart.range = [from, to];
      chart.draw();
    }
  }

  async loadTexts(field, span) {
    const query = { sensor: this.id, field: field.field, ...span, limit: MAX_TEXTS };
    const { readings } = await get("readings", query);
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
      const title = t("changes", { field: fieldName(field) });
      const none = el("p", { class: "empty" }, t("changes.empty"));
      return el("div", {}, el("h3", {}, title), rows.length ? table(title, [t("at"), t("value")], rows) : none);
    });
    arrange(this.changes, lists);
  }

  loadRequestsSoon() {
    this.soon ??= setTimeout(() => {
      this.soon = undefined;
      this.loadRequests();
    }, SOON);
  }

  async loadRequests() {
    try {
      const { requests } = await get("requests", { sensor: this.id, limit: MAX_REQUESTS });
      const rows = requests.map((each) => [
        time(Date.parse(each.at)),
        each.origin,
        [each.command, each.arguments].filter(Boolean).join(" "),
        word(`outcome.${each.outcome}`, each.outcome),
        duration(each.latency_ms),
      ]);
      const names = ["at", "origin", "command", "outcome", "latency"].map((name) => t(name));
      const none = el("p", { class: "empty" }, t("requests.empty"));
      arrange(this.requests, [rows.length ? table(t("requests"), names, rows) : none]);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      arrange(this.requests, [el("p", { class: "problem" }, problemText(problem))]);
    }
  }

  repaint() {
    for (const { chart } of this.charts.values()) chart.repaint();
  }

  close() {
    clearTimeout(this.soon);
    this.loads += 1;
    for (const off of this.off) off();
    for (const { chart } of this.charts.values()) chart.close();
  }
}

function textOf(reading) {
  return fieldValue({ ...reading, decimals: null });
}

/** A table in a region of its own that scrolls if it is too wide, also by keyboard. */
function table(label, names, rows) {
  return el(
    "div",
    { class: "scroll", role: "region", "aria-label": label, tabindex: 0 },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell) => el("td", {}, cell))))),
    ),
  );
}
