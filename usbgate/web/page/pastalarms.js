// Past alarms: of one sensor, of all sensors in a view of their own, and the times when their conditions held.

import { Problem, get } from "./api.js";
import { arrange, el, table } from "./dom.js";
import { conditionText, fieldLabel, fieldText, isOfSensor, length, ruleText, time } from "./format.js";
import { sensorAddress, sensorName } from "./sensortext.js";
import { store } from "./store.js";
import { problemText, t } from "./words.js";

const SOON = 1_500; // ms until an alarm that just changed is in the database
const LIMIT = 100;

/**
 * The [from, to], in ms, in which the condition of a sensor's field held on a device, oldest first. One that still
 * holds ends at `now`. `past` are alarms of the database, which may not have the newest yet.
 */
export function spansOf(past, { sensor, field, device }, now) {
  const known = new Set(past.map(({ id }) => id));
  const open = [...store.alarms.values()].filter(({ id }) => !known.has(id));
  return [...past, ...open.map((alarm) => ({ ...alarm, spans: [{ since: alarm.since, until: alarm.ended }] }))]
    .filter((alarm) => alarm.sensor === sensor && alarm.field === field && alarm.device === device)
    .flatMap(({ spans }) => spans.map(({ since, until }) => [Date.parse(since), until ? Date.parse(until) : now]))
    .sort(([a], [b]) => a - b);
}

/** A list of past alarms, kept up to date. */
export class PastAlarms {
  /** `sensor` is an id, or null for all. */
  constructor(sensor = null) {
    this.sensor = sensor;
    this.node = el("div", { class: "past" });
    this.soon = undefined;
    this.off = [
      store.on("alarm", (alarm) => (sensor === null || alarm.sensor === sensor) && this.loadSoon()),
      store.on("gap", () => this.load()),
    ];
    this.load();
  }

  async load() {
    try {
      const { alarms } = await get("alarms/history", { sensor: this.sensor, limit: LIMIT });
      const names = ["alarm.when", "sensor", "alarm.field", "alarm.length", "alarm.peak", "alarm.by"];
      const shown = names.filter((name) => name !== "sensor" || this.sensor === null).map((name) => t(name));
      const rows = alarms.map((alarm) => this.row(alarm));
      const none = el("p", { class: "empty" }, t("alarms.empty"));
      arrange(this.node, [rows.length ? table(t("alarms.past"), shown, rows) : none]);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      arrange(this.node, [el("p", { class: "problem" }, problemText(problem))]);
    }
  }

  loadSoon() {
    this.soon ??= setTimeout(() => {
      this.soon = undefined;
      this.load();
    }, SOON);
  }

  row(alarm) {
    const { sensor, since, ended, acknowledged, condition } = alarm;
    const field = store.field(sensor, alarm.field);
    const { value, text } = alarm.peak === null ? alarm : { value: alarm.peak, text: null };
    const said = ruleText(alarm);
    const cells = [
      time(Date.parse(since)),
      [said === null && fieldLabel(field), conditionText(field, condition)].filter(Boolean).join(" "),
      ended === null ? t("alarm.lasts") : length(Date.parse(ended) - Date.parse(since)),
      said ?? fieldText({ ...field, value, text }),
      acknowledged === null ? t("alarm.unseen") : `${acknowledged.by} · ${time(Date.parse(acknowledged.at))}`,
    ];
    if (this.sensor === null) {
      const named = [sensorName({ id: sensor, name: alarm.name }), alarm.place].filter(Boolean).join(" · ");
      cells.splice(1, 0, isOfSensor(alarm) ? el("a", { href: sensorAddress(sensor) }, named) : named);
    }
    return cells;
  }

  close() {
    clearTimeout(this.soon);
    for (const off of this.off) off();
  }
}

/** The view of the past alarms of all sensors. */
export class AlarmsView {
  constructor() {
    this.list = new PastAlarms();
    const heading = el("h1", { tabindex: -1 }, t("alarms.past"));
    const back = el("a", { class: "back", href: "#/" }, `‹ ${t("back")}`);
    this.node = el("div", { class: "own" }, back, heading, el("section", { class: "panel" }, this.list.node));
  }

  get title() {
    return `${t("alarms.past")} · usbgate`;
  }

  update() {}

  tick() {}

  close() {
    this.list.close();
  }
}
