// The overview: a card for each sensor, grouped by place.

import { arrange, el, icon, kindSign, setAttribute, setText } from "./dom.js";
import { ago, fieldLabel, fieldText, fieldUnit, fieldValue, time } from "./format.js";
import { draw, forget, sparkline, want } from "./sparks.js";
import { store } from "./store.js";
import { problemText, t } from "./words.js";

const REDRAW = 60; // seconds between updates of all sparklines
const DONE = 4_000; // ms for which a button shows that its command was carried out

export function sensorAddress(id) {
  return `#/sensor/${encodeURIComponent(id)}`;
}

export function sensorName(sensor) {
  return sensor.name ?? sensor.id;
}

/** The time of a sensor's newest reading, as usbgate formats it; "" for none. */
function newest(sensor) {
  return sensor.fields.reduce((last, field) => (field.at > last ? field.at : last), "");
}

/** A sensor's state: its shape, and its text. */
function stateOf(sensor) {
  const asks = [...(store.asks.get(sensor.id)?.values() ?? [])];
  const failed = store.failed(sensor.id);
  const alarming = sensor.fields.some((field) => field.alarming);
  const since = store.unknownSince(sensor);
  if (asks.some((asked) => asked.state === "waiting")) return ["asked", t("state.asked")];
  if (since !== null && sensor.fields.length) {
    const unknown = t("state.unknown", { time: time(since) });
    return alarming ? ["alarm", `${t("state.alarm")} · ${unknown}`] : ["offline", unknown];
  }
  if (alarming) return ["alarm", t("state.alarm")];
  if (failed) return ["failed", t(failed.problem.code === "timeout" ? "state.failed" : "state.refused")];
  if (sensor.fields.length === 0) return ["never", t("state.never")];
  return sensor.stale ? ["stale", t("state.stale")] : ["fresh", t("state.fresh")];
}

/** Whether a sensor's values may be old news. */
export function isOld(sensor) {
  return sensor.stale || store.unanswered.has(sensor.id) || store.unknownSince(sensor) !== null;
}

/** A sensor's card. On its own page (`whole`) it has no link and no sparklines. */
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
    setText(this.title, sensorName(sensor));
    const [shape, text] = stateOf(sensor);
    if (this.shown !== shape + text) {
      this.shown = shape + text;
      this.state.className = `state ${shape}`;
      this.state.replaceChildren(icon(shape), el("span", {}, text));
    }
    setAttribute(this.node, "data-state", shape);
    this.node.classList.toggle("old", isOld(sensor));
    arrange(this.list, sensor.fields.length ? sensor.fields.map((field) => this.row(field, sensor)) : [this.nothing()]);
    this.updateActions(sensor);
    this.tick();
  }

  nothing() {
    this.none ??= el("div", { class: "field" }, el("dd", { class: "reading" }, el("span", { class: "value" }, "–")));
    return this.none;
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
    row.reading.classList.toggle("long", text.length > 8);
    row.reading.classList.toggle("wide", field.value === null);
    row.node.classList.toggle("alarming", field.alarming);
    if (row.spark && this.seen) {
      setAttribute(row.spark.parentNode, "hidden", field.value === null ? "" : null);
      draw(row.spark, sensor.id, field);
    }
    return row.node;
  }

  updateActions(sensor) {
    const asks = store.asks.get(this.id) ?? new Map();
    const failed = store.failed(sensor.id);
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
        { type: "button", class: button ? "command" : "refresh", click: () => store.ask(this.id, made.button) },
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
    const at = newest(sensor);
    setText(this.age, at ? ago((store.now() - Date.parse(at)) / 1000) : t("nothing"));
  }

  /** The card is in sight: load what is costly. */
  loadSparks() {
    this.seen = true;
    want(this.id, () => this.update());
  }
}

/** All sensors. */
export class Overview {
  constructor() {
    this.cards = new Map();
    this.places = new Map();
    this.ticks = 0; // seconds
    this.node = el("div", { class: "overview" }, el("h1", { class: "unseen", tabindex: -1 }, t("overview")));
    this.grid = el("div", { class: "places" });
    this.empty = el("p", { class: "empty" });
    this.node.append(this.grid, this.empty);
    this.sight = new IntersectionObserver((entries) => this.showVisible(entries), { rootMargin: "200px" });
    this.off = [
      store.on("sensors", () => this.update()),
      store.on("sensor", (id) => this.cards.get(id)?.update()),
      store.on("gap", () => this.refetch()),
    ];
    this.update();
  }

  get title() {
    return "usbgate";
  }

  update() {
    const groups = new Map();
    for (const sensor of store.sensors.values()) {
      const place = sensor.place ?? "";
      if (!groups.has(place)) groups.set(place, []);
      groups.get(place).push(this.card(sensor.id).node);
    }
    // Sensors without a place come last.
    const names = [...groups.keys()].sort((a, b) => (a === "") - (b === ""));
    arrange(
      this.grid,
      names.map((name) => this.place(name, groups.get(name), groups.size === 1)),
    );
    for (const id of this.cards.keys()) if (!store.sensors.has(id)) this.cards.delete(id);
    this.empty.hidden = store.sensors.size > 0;
    setText(this.empty, t(store.loaded ? "empty" : "loading"));
  }

  card(id) {
    let card = this.cards.get(id);
    if (card === undefined) {
      card = new Card(id);
      card.node.dataset.sensor = id;
      this.cards.set(id, card);
      this.sight.observe(card.node);
    } else card.update();
    return card;
  }

  place(name, nodes, alone) {
    let place = this.places.get(name);
    if (place === undefined) {
      place = { title: el("h2"), cards: el("div", { class: "cards" }) };
      place.node = el("section", { class: "place" }, place.title, place.cards);
      this.places.set(name, place);
    }
    setText(place.title, name || t(alone ? "sensors" : "elsewhere"));
    place.title.classList.toggle("unseen", name === "" && alone);
    place.node.style.setProperty("--cards", nodes.length);
    arrange(place.cards, nodes);
    return place.node;
  }

  showVisible(entries) {
    for (const { isIntersecting, target } of entries) {
      const card = this.cards.get(target.dataset.sensor);
      if (card === undefined) continue;
      card.inSight = isIntersecting;
      if (isIntersecting) card.loadSparks();
    }
  }

  refetch() {
    forget();
    this.redraw();
  }

  redraw() {
    for (const card of this.cards.values()) if (card.inSight) card.loadSparks();
  }

  tick() {
    for (const card of this.cards.values()) card.tick();
    // Sparklines move with time, and are fetched again after a while.
    this.ticks += 1;
    if (this.ticks % REDRAW === 0) this.redraw();
  }

  close() {
    this.sight.disconnect();
    for (const off of this.off) off();
  }
}

/** What to announce to a screen reader when a request ended. */
export function outcomeText({ id, asked }) {
  const sensor = store.sensors.get(id);
  const name = sensor ? sensorName(sensor) : id;
  if (asked.state === "failed") return t("failed", { name, problem: problemText(asked.problem) });
  const shown = (sensor?.fields ?? []).filter((field) => field.field in asked.values);
  if (shown.length === 0) return t("acknowledged", { name });
  const values = shown.map(fieldText).join(", ");
  return t("answered", { name, values });
}

