// The overview: all sensors by place, as cards or as a list.

import { Card } from "./card.js";
import { arrange, el, icon, setAttribute, setText } from "./dom.js";
import { byName, searchText } from "./format.js";
import { choice, keptList, remember } from "./memory.js";
import { Row } from "./row.js";
import { emptyText, sensorName } from "./sensortext.js";
import { forget } from "./sparks.js";
import { store } from "./store.js";
import { count, t } from "./words.js";

const REDRAW = 60; // seconds between updates of all sparklines
const LAYOUTS = { cards: Card, list: Row };
const MANY = 40; // sensors, beyond which the list is shown unless cards are chosen
const FEW = 12; // sensors, up to which nobody needs a search
const LONG = 30; // sensors of a place that may be continued in the next column of the list
const MAX_FOLDED = 200; // places that the browser remembers as folded

let searched = ""; // kept while another view is shown

/** The sensors of a place, or of all, in groups by place: [name, sensors] each, both in order; without one, last. */
export function byPlace(sensors) {
  const groups = new Map();
  for (const sensor of sensors) {
    const place = sensor.place ?? "";
    if (!groups.has(place)) groups.set(place, []);
    groups.get(place).push(sensor);
  }
  for (const group of groups.values()) group.sort((a, b) => byName(sensorName(a), sensorName(b)));
  return [...groups].sort(([a], [b]) => (a === "") - (b === "") || byName(a, b));
}

export class Overview {
  constructor() {
    this.items = new Map(); // by id: a card or a row
    this.places = new Map();
    this.folded = new Set(keptList("folded")); // names of places
    this.ticks = 0; // seconds
    this.input = el("input", {
      ...{ type: "search", "aria-label": t("search"), placeholder: t("search"), autocomplete: "off", spellcheck: "false" },
      input: () => this.search(),
    });
    this.input.value = searched;
    this.found = el("span", { class: "found", role: "status" });
    this.layouts = Object.keys(LAYOUTS).map((name) =>
      el("button", { type: "button", "data-layout": name, click: () => this.choose(name) }, t(`layout.${name}`)),
    );
    this.foldAll = el("button", { type: "button", class: "plain", click: () => this.fold() });
    this.tools = el(
      "div",
      { class: "tools" },
      el("div", { class: "search", role: "search" }, this.input, this.found),
      this.foldAll,
      el("div", { class: "layouts", role: "group", "aria-label": t("layout") }, this.layouts),
    );
    this.grid = el("div");
    this.empty = el("p", { class: "empty" });
    this.node = el("div", { class: "overview" }, el("h1", { class: "unseen", tabindex: -1 }, t("overview")));
    this.node.append(this.tools, this.grid, this.empty);
    this.sight = new IntersectionObserver((entries) => this.showVisible(entries), { rootMargin: "200px" });
    this.off = [
      store.on("sensors", () => this.update()),
      store.on("sensor", (id) => this.updateSensor(id)),
      store.on("gap", () => this.refetch()),
    ];
    this.update();
  }

  get title() {
    return "usbgate";
  }

  get layout() {
    return choice("layout", Object.keys(LAYOUTS)) ?? (store.sensors.size > MANY ? "list" : "cards");
  }

  choose(layout) {
    remember("layout", layout);
    this.update();
  }

  search() {
    searched = this.input.value;
    this.update();
  }

  /** Fold all places, or unfold all if all are folded. */
  fold() {
    const names = [...this.places.keys()];
    this.setFolded(names.every((name) => this.folded.has(name)) ? [] : names);
  }

  toggle(name) {
    this.setFolded(this.folded.has(name) ? [...this.folded].filter((each) => each !== name) : [...this.folded, name]);
  }

  setFolded(names) {
    this.folded = new Set(names);
    remember("folded", JSON.stringify(names.slice(-MAX_FOLDED)));
    this.update();
  }

  update() {
    const { layout } = this;
    if (layout !== this.shown) {
      this.shown = layout;
      this.items.clear();
      this.sight.disconnect();
      this.grid.className = `places ${layout === "list" ? "listed" : ""}`;
      for (const button of this.layouts) setAttribute(button, "aria-pressed", String(button.dataset.layout === layout));
    }
    const all = [...store.sensors.values()];
    const words = searchText(searched).split(/\s+/).filter(Boolean);
    const matches = words.length ? all.filter((sensor) => this.matches(sensor, words)) : all;
    const groups = byPlace(matches);
    for (const id of this.items.keys()) if (!store.sensors.has(id)) this.items.delete(id);
    arrange(
      this.grid,
      groups.map(([name, sensors]) => this.place(name, sensors, groups.length === 1, words.length > 0)),
    );
    this.tools.hidden = all.length === 0;
    this.tools.firstChild.hidden = all.length <= FEW && !searched;
    this.foldAll.hidden = all.length <= FEW || groups.length < 2 || words.length > 0;
    setText(this.foldAll, t(groups.every(([name]) => this.folded.has(name)) ? "unfold" : "fold"));
    setText(this.found, words.length ? t("found", { n: matches.length, all: all.length }) : "");
    this.empty.hidden = matches.length > 0;
    setText(this.empty, all.length ? t("found.none", { text: searched }) : emptyText(t("empty")));
  }

  /** Whether a sensor has all of these words in its name, id or place. */
  matches(sensor, words) {
    const text = searchText([sensor.name, sensor.id, sensor.place].filter(Boolean).join(" "));
    return words.every((word) => text.includes(word));
  }

  updateSensor(id) {
    this.items.get(id)?.update();
    const sensor = store.sensors.get(id);
    const place = this.places.get(sensor?.place ?? "");
    if (place?.sensors.includes(sensor)) this.updateAlarms(place);
  }

  item(id) {
    let item = this.items.get(id);
    if (item === undefined) {
      item = new LAYOUTS[this.shown](id);
      item.node.dataset.sensor = id;
      this.items.set(id, item);
      this.sight.observe(item.node);
    } else item.update();
    return item;
  }

  place(name, sensors, alone, isSearch) {
    let place = this.places.get(name);
    if (place === undefined) {
      place = { title: el("span"), count: el("span", { class: "count" }), alarms: el("span"), items: el("div") };
      place.opener = el(
        "button",
        { type: "button", class: "plain", click: () => this.toggle(name) },
        ...[place.title, place.count, place.alarms],
      );
      place.heading = el("h2", {}, place.opener);
      place.node = el("section", { class: "place" }, place.heading, place.items);
      this.places.set(name, place);
    }
    // A single place needs no heading.
    const isFolded = this.folded.has(name) && !isSearch && !alone;
    place.sensors = sensors;
    setText(place.title, name || t(alone ? "sensors" : "elsewhere"));
    place.heading.classList.toggle("unseen", name === "" && alone);
    setText(place.count, String(sensors.length));
    setAttribute(place.opener, "aria-expanded", String(!isFolded));
    place.node.style.setProperty("--cards", isFolded ? 1 : sensors.length);
    place.node.classList.toggle("long", sensors.length > LONG);
    place.items.className = this.shown === "cards" ? "cards" : "rows";
    place.items.hidden = isFolded;
    this.updateAlarms(place);
    arrange(place.items, isFolded ? [] : sensors.map(({ id }) => this.item(id).node));
    return place.node;
  }

  /** Show the number of alarms beside the name of a place, which may be folded. */
  updateAlarms(place) {
    const alarms = place.sensors.filter(({ fields }) => fields.some((field) => field.alarming)).length;
    if (place.shownAlarms === alarms) return;
    place.shownAlarms = alarms;
    place.alarms.className = alarms ? "state alarm" : "";
    place.alarms.replaceChildren(...(alarms ? [icon("alarm"), count("alarms", alarms)] : []));
  }

  showVisible(entries) {
    for (const { isIntersecting, target } of entries) {
      const item = this.items.get(target.dataset.sensor);
      if (item?.node !== target) continue;
      item.inSight = isIntersecting;
      if (isIntersecting) item.loadSparks();
    }
  }

  refetch() {
    forget();
    this.redraw();
  }

  redraw() {
    for (const item of this.items.values()) if (item.inSight) item.loadSparks();
  }

  tick() {
    for (const item of this.items.values()) item.tick();
    // Sparklines move with time, and are fetched again after a while.
    this.ticks += 1;
    if (this.ticks % REDRAW === 0) this.redraw();
  }

  close() {
    this.sight.disconnect();
    for (const off of this.off) off();
  }
}
