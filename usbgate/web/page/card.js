// The card of a sensor: its values with sparklines, its state, and its buttons.

import { arrange, el, icon, kindSign, setAttribute, setText } from "./dom.js";
import { fieldLabel, fieldUnit, fieldValue } from "./format.js";
import { ageText, sensorAddress, sensorName, showSensor } from "./sensortext.js";
import { draw, sparkline, want } from "./sparks.js";
import { store } from "./store.js";
import { problemText, t } from "./words.js";

const DONE = 4_000; // ms for which a button shows that its command was carried out
const MAX_FIELDS = 4; // of a card in the overview: one with more would stretch its whole row

/** On a page of its own (`whole`) it has no link and no sparklines. */
export class Card {
  constructor(id, whole = false) {
    this.id = id;
    this.whole = whole;
    this.fields = new Map();
    this.buttons = new Map();
    this.seen = whole;
    this.title = whole ? el("span") : el("a", { href: sensorAddress(id) });
    this.state = el("span", { class: "state" });
    this.list = el("dl", { class: "fields" });
    this.problem = el("p", { class: "problem", hidden: true });
    this.age = el("span", { class: "age" });
    this.commands = el("div", { class: "actions" });
    this.refresh = el("div", { class: "actions" });
    this.node = el(
      "article",
      { class: whole ? "card whole" : "card" },
      el(whole ? "h2" : "h3", {}, this.title),
      this.list,
      this.problem,
      this.commands,
      el("footer", {}, el("p", { class: "how" }, this.state, " ", this.age), this.refresh),
    );
    this.update();
  }

  get sensor() {
    return store.sensors.get(this.id);
  }

  update() {
    const { sensor } = this;
    if (sensor === undefined) return;
    showSensor(this, sensor);
    arrange(this.list, sensor.fields.length ? this.rows(sensor) : [this.nothing()]);
    this.updateActions(sensor);
    this.tick();
  }

  nothing() {
    this.none ??= el("div", { class: "field" }, el("dd", { class: "reading" }, el("span", { class: "value" }, "–")));
    return this.none;
  }

  /** The rows of its fields; in the overview, those that fit, with those that raise alarms, and how many more. */
  rows(sensor) {
    const { fields } = sensor;
    if (this.whole || fields.length <= MAX_FIELDS) return fields.map((field) => this.row(field, sensor));
    const first = [...fields].sort((a, b) => b.alarming - a.alarming).slice(0, MAX_FIELDS - 1);
    this.more ??= el("a", { href: sensorAddress(this.id) });
    this.rest ??= el("div", { class: "field" }, el("dd", { class: "more" }, this.more));
    setText(this.more, t("more", { n: fields.length - first.length }));
    return [...fields.filter((field) => first.includes(field)).map((field) => this.row(field, sensor)), this.rest];
  }

  row(field, sensor) {
    let row = this.fields.get(field.field);
    if (row === undefined) {
      row = { value: el("span", { class: "value" }), unit: el("span", { class: "unit" }), name: el("dt") };
      row.icon = el("span", { class: "sign" });
      row.reading = el("dd", { class: "reading" }, row.icon, row.value, row.unit);
      row.spark = this.whole ? null : sparkline();
      const spark = row.spark && el("dd", { "aria-hidden": "true" }, row.spark);
      row.node = el("div", { class: "field" }, row.name, row.reading, spark);
      row.reading.addEventListener("animationend", () => row.reading.classList.remove("new"));
      this.fields.set(field.field, row);
    }
    // With only one number, the sensor's name is enough.
    const alone = sensor.fields.length === 1 && !field.states;
    setText(row.name, fieldLabel(field));
    row.name.classList.toggle("unseen", alone);
    row.node.classList.toggle("alone", alone);
    const text = fieldValue(field);
    if (row.at !== undefined && row.at !== field.at) row.reading.classList.add("new");
    row.at = field.at;
    setText(row.value, text);
    const unit = fieldUnit(field);
    setText(row.unit, unit ? `\u202f${unit}` : "");
    if (row.kind !== field.kind) {
      row.kind = field.kind;
      row.icon.replaceChildren(...[kindSign(field.kind)].filter(Boolean));
    }
    row.reading.classList.toggle("text", field.value === null || field.states);
    const long = text.length > 8; // such as the index of a meter, whose sparkline would be a straight line
    const wide = field.value === null || long;
    row.reading.classList.toggle("long", long);
    row.reading.classList.toggle("wide", wide);
    row.node.classList.toggle("alarming", field.alarming);
    if (row.spark && this.seen) {
      setAttribute(row.spark.parentNode, "hidden", wide ? "" : null);
      draw(row.spark, sensor.id, field);
    }
    return row.node;
  }

  updateActions(sensor) {
    const asks = store.asks.of(this.id);
    const failed = store.asks.failed(sensor.id);
    this.problem.hidden = failed === undefined;
    setText(this.problem, failed ? problemText(failed.problem) : "");
    const made = (button) => this.button(button, asks.get(button?.label ?? ""), sensor);
    arrange(this.commands, sensor.commands.map(made));
    arrange(this.refresh, [made(null)]);
  }

  button(button, asked, sensor) {
    const key = button?.label ?? "";
    let made = this.buttons.get(key);
    if (made === undefined) {
      made = { label: el("span"), of: el("span", { class: "unseen" }), sign: el("span", { class: "sign" }) };
      // Not disabled while it waits: it would lose the focus of a keyboard.
      made.node = el(
        "button",
        { type: "button", class: button ? "command" : "refresh", click: () => store.asks.ask(this.id, made.button) },
        ...[made.sign, made.label, made.of],
      );
      this.buttons.set(key, made);
    }
    made.button = button;
    const waiting = asked?.state === "waiting";
    const done = asked?.state === "done" && store.now() - asked.at < DONE;
    if (done) made.timer ??= setTimeout(() => this.undone(made), DONE);
    setText(made.label, button ? button.label : t(waiting ? "refresh.waiting" : "refresh"));
    setText(made.of, ` ${sensorName(sensor)}`);
    setAttribute(made.node, "aria-disabled", waiting ? "true" : null);
    setAttribute(made.node, "data-asked", waiting ? "waiting" : done ? "done" : null);
    const sign = waiting ? "asked" : done ? "done" : "";
    if (made.shown !== sign) made.sign.replaceChildren(...(sign ? [icon(sign)] : []));
    made.shown = sign;
    return made.node;
  }

  undone(made) {
    made.timer = undefined;
    this.update();
  }

  /** Update the age. */
  tick() {
    const { sensor } = this;
    if (sensor === undefined) return;
    setText(this.age, ageText(sensor));
  }

  /** The card is in sight: load what is costly. */
  loadSparks() {
    this.seen = true;
    want(this.id, () => this.update());
  }
}
