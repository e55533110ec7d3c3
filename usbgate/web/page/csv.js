// The download of a sensor's readings as CSV: for other programs, or as spreadsheets of the reader's country read it.

import { csvAddress } from "./api.js";
import { el } from "./dom.js";
import { decimalSign } from "./format.js";
import { choice, remember } from "./memory.js";
import { t } from "./words.js";

const CHOICES = { separator: ["comma", "semicolon", "tab"], decimal: ["point", "comma"], times: ["utc", "local"] };

export class CsvDownload {
  /** `query()` returns the sensor and the period, as parameters of a call. */
  constructor(query) {
    this.query = query;
    const comma = decimalSign() === ",";
    const usual = { separator: comma ? "semicolon" : "comma", decimal: comma ? "comma" : "point", times: "local" };
    this.selects = Object.entries(CHOICES).map(([name, values]) => {
      const chosen = choice(`csv.${name}`, values) ?? usual[name];
      const option = (value) => el("option", { value, selected: value === chosen }, t(`csv.${name}.${value}`));
      return el("select", { name, change: (event) => this.changed(event.target) }, values.map(option));
    });
    this.link = el("a", { class: "button", download: "" }, t("csv"));
    const labels = this.selects.map((select) => el("label", {}, t(`csv.${select.name}`), " ", select));
    this.node = el(
      "details",
      { class: "csv" },
      el("summary", { class: "button" }, t("csv.open")),
      el("div", { class: "custom" }, labels, this.link),
    );
  }

  changed({ name, value }) {
    remember(`csv.${name}`, value);
    this.update();
  }

  /** Set the address, for another period. */
  update() {
    const [separator, decimal, times] = this.selects.map(({ value }) => value);
    const zone = times === "local" ? Intl.DateTimeFormat().resolvedOptions().timeZone : null;
    this.link.href = csvAddress({ ...this.query(), separator, decimal, zone });
  }
}
