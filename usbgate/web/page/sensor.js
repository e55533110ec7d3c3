// The view of one sensor: its card, charts of a chosen period, its past alarms, and its latest requests.

import { Problem, get } from "./api.js";
import { Card } from "./card.js";
import { Charts } from "./charts.js";
import { CsvDownload } from "./csv.js";
import { arrange, el, setText, table } from "./dom.js";
import { duration, time } from "./format.js";
import { PastAlarms } from "./pastalarms.js";
import { Range } from "./range.js";
import { emptyText, sensorName } from "./sensortext.js";
import { store } from "./store.js";
import { problemText, t, word } from "./words.js";

const MAX_REQUESTS = 12;
const SOON = 1_500; // ms until a request that just ended is in the database

export class SensorView {
  constructor(id) {
    this.id = id;
    this.card = new Card(id, true);
    this.range = new Range(() => this.load());
    this.charts = new Charts(id, this.range);
    this.alarms = new PastAlarms(id);
    this.name = el("h1", { tabindex: -1 });
    this.place = el("p", { class: "where" });
    this.missing = el("p", { class: "empty" });
    this.csv = new CsvDownload(() => ({ sensor: id, ...this.range.query() }));
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
        this.charts.node,
        el("div", { class: "under" }, this.range.moves, this.hint, this.csv.node),
      ),
      el("section", { class: "panel" }, el("h2", {}, t("alarms.past")), this.alarms.node),
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
      store.on("alarm", (alarm) => alarm.sensor === id && this.charts.addAlarm(alarm)),
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
    this.name.classList.toggle("named", Boolean(sensor?.name));
    setText(this.missing, emptyText(t("missing", { id: this.id })));
    if (sensor === undefined) return;
    setText(this.place, [sensor.place, sensor.name && sensor.id, sensor.device].filter(Boolean).join(" · "));
    this.card.update();
    // Of a field that was just reported for the first time, it is not known yet whether it has states.
    const fields = sensor.fields.map(({ field, states }) => `${field} ${states}`).join(" ");
    if (fields !== this.fields) {
      this.fields = fields;
      this.load();
    }
  }

  load() {
    if (!store.sensors.has(this.id)) return;
    this.csv.update();
    this.charts.load().then(() => {
      this.hint.hidden = !this.charts.hasLines;
    });
  }

  tick() {
    this.card.tick();
    this.charts.tick();
  }

  addReport(reading) {
    if (reading.command !== null) this.loadRequestsSoon();
    this.charts.addReport(reading);
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
    this.charts.repaint();
  }

  close() {
    clearTimeout(this.soon);
    for (const off of this.off) off();
    this.charts.close();
    this.alarms.close();
  }
}
