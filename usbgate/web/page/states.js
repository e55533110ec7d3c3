// A chart of a field whose values are states: a bar, the total time of each state, and the newest changes.

import { arrange, el, placed, setText, table } from "./dom.js";
import { fieldLabel, fieldText, length, moment, ticks, time } from "./format.js";
import { marks } from "./marks.js";
import { t } from "./words.js";

const [MINUTE, HOUR, DAY] = [60_000, 3_600_000, 86_400_000]; // ms
const STEPS = [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 30 * DAY];
const TICK = 90; // px between two labels at least
const LAST = 50; // px of a label at the end of the axis
const LABEL = 70; // px of a segment that has room for its text
const MAX_STATES = 8; // different states in a bar; of more, such as texts of a log, only the changes are shown
const MAX_CHANGES = 30;
const COLOURS = 5; // of states that are not off; page.css has them

/** The spelling of a value, by which states differ. */
function keyOf({ value, text }) {
  return text ?? String(value);
}

/** Whether a state meets the condition of an alarm. */
function meets(key, condition) {
  const [, compare, operand] = /^(\S+) (.+)$/.exec(condition ?? "") ?? [];
  if (compare === "==" || compare === "!=") return (key === operand) === (compare === "==");
  const [value, limit] = [Number(key), Number(operand)];
  return (value < limit && compare?.[0] === "<") || (value > limit && compare?.[0] === ">")
    || (value === limit && compare?.[1] === "=");
}

/** Add a reading at a time in ms to the states of a bar, unless they have it. */
export function addState(states, reading, at) {
  const last = states.at(-1);
  if (last !== undefined && at <= last.until) return;
  if (last !== undefined) last.until = at;
  if (last === undefined || keyOf(last) !== keyOf(reading)) states.push({ ...reading, since: at, until: at });
}

export class StateBar {
  constructor() {
    this.field = null;
    this.states = []; // oldest first: {since, until, value, text}, in ms
    this.bar = el("div", { class: "bar", role: "img" });
    this.ticks = el("div", { class: "ticks", "aria-hidden": "true" });
    this.totals = el("p", { class: "readout" });
    this.summary = el("summary");
    this.changes = el("div");
    this.details = el("details", {}, this.summary, this.changes);
    this.empty = el("p", { class: "empty" }, t("chart.empty"));
    this.flags = el("div", { class: "flags", "aria-hidden": "true" });
    this.plot = el("div", { class: "states" }, this.flags, this.bar, this.ticks, this.totals);
    this.node = el("figure", { class: "chart" }, this.plot, this.empty, this.details);
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.bar);
  }

  /**
   * Show states between two times; the last one still lasts if it is `current`. `spans` are the [from, to] in which the
   * condition of its alarm held.
   */
  show(states, spans, from, to, current) {
    this.states = states;
    this.spans = spans;
    this.range = [from, to];
    this.current = current;
    this.draw();
  }

  draw() {
    if (this.range === undefined) return;
    const [from, to] = this.range;
    const shown = this.states
      .map((state, index) => (this.current && index === this.states.length - 1 ? { ...state, until: to } : state))
      .filter(({ since, until }) => until >= from && since <= to)
      .map((state) => ({ ...state, since: Math.max(state.since, from), until: Math.min(state.until, to) }));
    const totals = new Map();
    for (const state of shown) totals.set(keyOf(state), (totals.get(keyOf(state)) ?? 0) + state.until - state.since);
    const texts = new Map(shown.map((state) => [keyOf(state), fieldText({ ...this.field, ...state })]));
    const keys = [...totals.keys()].sort();
    this.empty.hidden = shown.length > 0;
    this.plot.hidden = shown.length === 0 || keys.length > MAX_STATES;
    if (keys.length > MAX_STATES) this.details.open = true;
    const summary = keys.map((key) => `${texts.get(key)} ${length(totals.get(key))}`);
    setText(this.totals, summary.join(" · "));
    this.bar.setAttribute("aria-label", `${fieldLabel(this.field)}: ${summary.join(", ")}`);
    const on = keys.filter((key) => !["0", "OFF"].includes(key.toUpperCase()));
    const colourOf = (key) => {
      if (meets(key, this.field.alarm)) return "alarm";
      return on.includes(key) ? `on${on.indexOf(key) % COLOURS}` : "off";
    };
    if (!this.plot.hidden) {
      this.bar.replaceChildren(...this.segments(shown, colourOf, texts));
      const width = this.bar.clientWidth || 1;
      const x = (at) => ((at - from) / (to - from)) * width;
      this.flags.replaceChildren(...marks(this.spans, this.range, x, width));
      this.drawTicks();
    }
    this.showChanges(shown, texts);
  }

  /** The segments of the bar. None is too narrow to be seen; page.css puts those that are off below the others. */
  segments(shown, colourOf, texts) {
    const [from, to] = this.range;
    const whole = this.bar.clientWidth || 1;
    const scale = whole / (to - from);
    return shown.map((state) => {
      const { since, until } = state;
      const text = texts.get(keyOf(state));
      const title = `${text} · ${moment(since, to - from)} – ${moment(until, to - from)} · ${length(until - since)}`;
      const width = Math.max((until - since) * scale, 2);
      const segment = el("span", { class: `segment ${colourOf(keyOf(state))}`, title }, width > LABEL ? text : null);
      return placed(segment, { left: `${Math.min((since - from) * scale, whole - 2)}px`, width: `${width}px` });
    });
  }

  drawTicks() {
    const [from, to] = this.range;
    const width = this.bar.clientWidth || 1;
    const step = STEPS.find((each) => (width * each) / (to - from) >= TICK) ?? STEPS.at(-1);
    const zone = new Date(to).getTimezoneOffset() * MINUTE;
    const times = [];
    for (let at = Math.ceil((from - zone) / step) * step + zone; at <= to; at += step) times.push(at);
    const labels = ticks(times, step / 1000);
    this.ticks.classList.toggle("dated", labels[0]?.includes("\n") ?? false);
    const spans = labels.map((text, n) => {
      const left = ((times[n] - from) / (to - from)) * width;
      const lines = left < width - LAST ? text.split("\n").map((line) => el("span", {}, line)) : [];
      return placed(el("div", {}, lines), { left: `${left}px` });
    });
    this.ticks.replaceChildren(...spans);
  }

  showChanges(shown, texts) {
    const rows = shown
      .slice(-MAX_CHANGES)
      .reverse()
      .map((state) => [time(state.since), texts.get(keyOf(state)), length(state.until - state.since)]);
    this.details.hidden = rows.length === 0;
    // A table that is replaced loses its scroll position and its focus.
    const written = JSON.stringify(rows);
    if (written === this.written) return;
    this.written = written;
    const title = t("changes", { field: fieldLabel(this.field) });
    setText(this.summary, title);
    arrange(this.changes, [table(title, [t("at"), t("value"), t("latency")], rows)]);
  }

  repaint() {}

  close() {
    this.resize.disconnect();
  }
}
