// The period that is shown: a span until now, or between two times.

import { el, setAttribute } from "./dom.js";
import { store } from "./store.js";
import { t } from "./words.js";

const [SECOND, HOUR, DAY] = [1_000, 3_600_000, 86_400_000]; // ms
const SHORTEST = 10 * SECOND; // that buttons zoom in to at most
const LONGEST = 5 * 366 * DAY; // and out
const SPANS = { "1h": HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY };

export class Range {
  /** `changed` is called when another period is chosen. */
  constructor(changed) {
    this.changed = changed;
    this.span = "24h";
    this.custom = null; // [from, to] in ms; null for a span until now
    this.buttons = Object.keys(SPANS).map((span) =>
      el("button", { type: "button", "data-span": span, click: () => this.choose(span) }, t(`range.${span}`)),
    );
    this.opener = el(
      "button",
      { type: "button", "data-span": "custom", "aria-expanded": "false", click: () => this.open(this.form.hidden) },
      t("range.custom"),
    );
    this.from = el("input", { type: "datetime-local", required: true });
    this.to = el("input", { type: "datetime-local", required: true });
    this.form = el(
      "form",
      { class: "custom", hidden: true, submit: (event) => this.submit(event) },
      el("label", {}, t("from"), " ", this.from),
      el("label", {}, t("to"), " ", this.to),
      el("button", { type: "submit" }, t("show")),
    );
    const move = (text, of) => el("button", { type: "button", click: () => this.move(...of) }, t(text));
    // For fingers, which scroll where a mouse zooms.
    this.moves = el(
      "div",
      { class: "ranges", role: "group", "aria-label": t("zoom") },
      move("earlier", [-0.5, 1]),
      move("zoom.in", [0, 0.5]),
      move("zoom.out", [0, 2]),
      move("later", [0.5, 1]),
    );
    this.node = el(
      "div",
      {},
      el("div", { class: "ranges", role: "group", "aria-label": t("range") }, this.buttons, this.opener),
      this.form,
    );
    this.update();
  }

  /** The period: [from, to] in ms. */
  extent() {
    const now = store.now();
    return this.custom ?? [now - SPANS[this.span], now];
  }

  /** The period as parameters of a call. */
  query() {
    const [from, to] = this.extent();
    return { since: new Date(from).toISOString(), until: this.custom && new Date(to).toISOString() };
  }

  /** Choose a span until now. */
  choose(span) {
    this.span = span;
    this.custom = null;
    this.open(false);
    this.update();
    this.changed();
  }

  /** Choose the time between two moments, in ms. */
  zoom(from, to) {
    this.custom = [Math.floor(from), Math.ceil(to)];
    this.update();
    this.changed();
  }

  /** Move the period by a part of its length, and change its length by a factor; one that ends now still does. */
  move(by, factor) {
    const [from, to] = this.extent();
    const length = Math.min(Math.max((to - from) * factor, SHORTEST), LONGEST);
    const now = store.now();
    const middle = this.custom || by ? (from + to) / 2 + by * (to - from) : to - length / 2;
    const end = Math.min(middle + length / 2, now);
    const span = Object.keys(SPANS).find((each) => Math.abs(SPANS[each] - length) < SECOND);
    if (end === now && span) this.choose(span);
    else this.zoom(end - length, end);
  }

  open(opened) {
    this.form.hidden = !opened;
    setAttribute(this.opener, "aria-expanded", String(opened));
    if (!opened) return;
    this.fill();
    this.from.focus();
  }

  fill() {
    [this.from.value, this.to.value] = this.extent().map(local);
  }

  submit(event) {
    event.preventDefault(); // do not submit the form to a server
    const [from, to] = [this.from, this.to].map((input) => new Date(input.value).getTime());
    if (from !== to) this.zoom(Math.min(from, to), Math.max(from, to));
  }

  update() {
    if (!this.form.hidden) this.fill();
    const shown = this.custom ? "custom" : this.span;
    for (const button of [...this.buttons, this.opener]) {
      setAttribute(button, "aria-pressed", String(button.dataset.span === shown));
    }
  }
}

/** A time in ms as the value of a `datetime-local` input. */
function local(at) {
  const date = new Date(at - new Date(at).getTimezoneOffset() * 60_000);
  return date.toISOString().slice(0, 16);
}
