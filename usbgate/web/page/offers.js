// Sensors that fell silent, each with an id like it that appeared since: perhaps it is the sensor with a new battery.

import { Problem } from "./api.js";
import { arrange, el, icon, setAttribute, setText } from "./dom.js";
import { time } from "./format.js";
import { store } from "./store.js";
import { problemText, t } from "./words.js";

/** The offers, in a live region. Who may not accept them sees the command that does. */
export class Offers {
  constructor(region) {
    this.region = region;
    this.shown = new Map();
    store.on("state", () => this.update());
    this.update();
  }

  update() {
    const offers = store.connection === "lost" ? [] : store.offers;
    const keys = new Set(offers.map(keyOf));
    for (const key of this.shown.keys()) if (!keys.has(key)) this.shown.delete(key);
    arrange(
      this.region,
      offers.map((offer) => this.offer(offer)),
    );
  }

  offer(offer) {
    const { sensor, successor, since, first } = offer;
    const name = store.sensors.get(sensor)?.name;
    const values = { name: name ? `${name} (${sensor})` : sensor, successor };
    let made = this.shown.get(keyOf(offer));
    if (made === undefined) {
      made = { about: el("p") };
      made.button = el("button", { type: "button", click: () => this.accept(offer) });
      made.problem = el("p", { class: "problem", hidden: true });
      made.command = el("code", {}, `usbgate replace ${sensor} ${successor}`);
      made.node = el("div", { class: "notice offer" }, icon("info"), made.about, made.button, made.command, made.problem);
      this.shown.set(keyOf(offer), made);
    }
    const times = { since: time(Date.parse(since)), first: time(Date.parse(first)) };
    setText(made.about, t("offer", { ...values, ...times }));
    setText(made.button, t("offer.accept", values));
    made.button.hidden = store.role !== "admin";
    made.command.hidden = !made.button.hidden;
    return made.node;
  }

  async accept(offer) {
    const { button, problem: trouble } = this.shown.get(keyOf(offer));
    if (button.getAttribute("aria-disabled")) return;
    setAttribute(button, "aria-disabled", "true");
    trouble.hidden = true;
    try {
      await store.replace(offer.sensor, offer.successor);
      // The button is gone: move the focus of a keyboard.
      document.getElementById("main").focus({ preventScroll: true });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      trouble.hidden = false;
      setText(trouble, problemText(problem));
    } finally {
      setAttribute(button, "aria-disabled", null);
    }
  }
}

function keyOf({ sensor, successor }) {
  return `${sensor} ${successor}`; // no id has a space
}
