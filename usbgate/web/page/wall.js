// A wall display: the sensors of a place, or all, as large as they fit, without controls. `page.css` puts alarms over
// everything, and fits the text into the tiles.

import { arrange, el, kindSign, setText } from "./dom.js";
import { clock, fieldLabel, fieldUnit, fieldValue } from "./format.js";
import { byPlace } from "./overview.js";
import { ageText, emptyText, showSensor } from "./sensortext.js";
import { store } from "./store.js";
import { t } from "./words.js";

const MAX_FIELDS = 4; // of a tile
const SHAPE = 1.6; // the width of a tile by its height, as far as the screen lets it

class Tile {
  constructor(id) {
    this.id = id;
    this.title = el("h2");
    this.state = el("span", { class: "state" });
    this.age = el("span", { class: "age" });
    this.list = el("dl");
    this.node = el("article", { class: "tile" }, this.title, this.list, el("p", {}, this.state, this.age));
    this.update();
  }

  update() {
    const sensor = store.sensors.get(this.id);
    if (sensor === undefined) return;
    showSensor(this, sensor);
    const fields = sensor.fields.slice(0, MAX_FIELDS);
    this.node.style.setProperty("--fields", fields.length || 1);
    this.list.replaceChildren(...fields.map((field) => this.row(field, fields.length === 1 && !field.states)));
    this.tick();
  }

  row(field, alone) {
    const [label, unit, text] = [fieldLabel(field), fieldUnit(field), fieldValue(field)];
    const row = el(
      "div",
      { class: field.value === null || field.states ? "text" : null },
      el("dt", { class: alone ? "unseen" : null }, label),
      el("dd", {}, kindSign(field.kind), el("span", { class: "value" }, text), unit && el("span", { class: "unit" }, unit)),
    );
    // Their widths in characters, a unit being half as large as its value.
    row.style.setProperty("--value", text.length + (unit?.length ?? 0) / 2);
    row.style.setProperty("--label", alone ? 0 : label.length);
    return row;
  }

  tick() {
    const sensor = store.sensors.get(this.id);
    if (sensor) setText(this.age, ageText(sensor));
  }
}

export class Wall {
  /** `place` is the name of a place, or "" for all. */
  constructor(place) {
    this.place = place;
    this.tiles = new Map();
    this.clock = el("time");
    this.grid = el("div", { class: "tiles" });
    this.empty = el("p", { class: "empty" });
    const heading = el("h1", { tabindex: -1 }, el("a", { class: "named", href: "#/" }, place || t("overview")));
    this.node = el("div", { class: "wall" }, el("header", {}, heading, this.clock), this.empty, this.grid);
    this.resize = new ResizeObserver(() => this.fit());
    this.resize.observe(this.grid);
    this.off = [
      store.on("sensors", () => this.update()),
      store.on("sensor", (id) => this.tiles.get(id)?.update()),
    ];
    this.update();
    this.tick();
  }

  get title() {
    return `${this.place || t("wall")} · usbgate`;
  }

  update() {
    const all = [...store.sensors.values()];
    const sensors = this.place ? all.filter(({ place }) => place === this.place) : all;
    const shown = byPlace(sensors).flatMap(([, each]) => each);
    for (const id of this.tiles.keys()) if (!shown.some((sensor) => sensor.id === id)) this.tiles.delete(id);
    for (const { id } of shown) {
      if (this.tiles.has(id)) this.tiles.get(id).update();
      else this.tiles.set(id, new Tile(id));
    }
    arrange(this.grid, shown.map(({ id }) => this.tiles.get(id).node));
    this.empty.hidden = shown.length > 0;
    const none = this.place ? t("wall.none", { place: this.place }) : t("empty");
    setText(this.empty, emptyText(none));
    this.fit();
  }

  /** Choose the number of columns, so that the tiles fill the screen. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.grid;
    const columns = Math.round(Math.sqrt((this.tiles.size * width) / (SHAPE * (height || 1))));
    this.grid.style.setProperty("--columns", Math.min(Math.max(columns, 1), this.tiles.size || 1));
  }

  tick() {
    setText(this.clock, clock(Date.now()));
    for (const tile of this.tiles.values()) tile.tick();
  }

  close() {
    this.resize.disconnect();
    for (const off of this.off) off();
  }
}
