// The row of a sensor in the list: its name, its values and its state, in one line.

import { el, setText } from "./dom.js";
import { fieldText } from "./format.js";
import { ageText, isOld, sensorAddress, showSensor } from "./sensortext.js";
import { store } from "./store.js";

const MAX_FIELDS = 3;

export class Row {
  constructor(id) {
    this.id = id;
    this.title = el("a", { href: sensorAddress(id) });
    this.age = el("span", { class: "age" });
    this.values = el("span", { class: "value" });
    this.state = el("span", { class: "state" });
    this.node = el("article", { class: "row" }, el("h3", {}, this.title), this.age, this.values, this.state);
    this.update();
  }

  get sensor() {
    return store.sensors.get(this.id);
  }

  update() {
    const { sensor } = this;
    if (sensor === undefined) return;
    showSensor(this, sensor, "unseen");
    const texts = sensor.fields.slice(0, MAX_FIELDS).map(fieldText);
    if (sensor.fields.length > MAX_FIELDS) texts.push(`+${sensor.fields.length - MAX_FIELDS}`);
    setText(this.values, texts.join(" · ") || "–");
    this.tick();
  }

  /** Update the age, which is shown of old values only. */
  tick() {
    const { sensor } = this;
    if (sensor) setText(this.age, isOld(sensor) ? ageText(sensor) : "");
  }

  loadSparks() {}
}
