// What stands at the top of the page: alarms until somebody has seen them, and what is not as it should be.

import { Problem } from "./api.js";
import { sensorAddress } from "./cards.js";
import { arrange, el, icon, mark, say } from "./dom.js";
import { fieldName, fieldValue, time, withUnit } from "./format.js";
import { store } from "./store.js";
import { problemText, rows, t } from "./words.js";

/** The alarms, in the page's region for them; each keeps its element, so that only what is new is announced. */
export class Alarms {
  constructor(region) {
    this.region = region;
    this.shown = new Map();
    store.on("alarms", () => this.update());
    this.update();
  }

  /** How many are still to be seen by somebody, and the first one's name: for the title of the page. */
  static get unseen() {
    return [...store.alarms.values()].filter((alarm) => alarm.acknowledged === null);
  }

  update() {
    for (const id of this.shown.keys()) if (!store.alarms.has(id)) this.shown.delete(id);
    // Those that nobody has seen come first.
    const alarms = [...store.alarms.values()].sort((a, b) => (a.acknowledged !== null) - (b.acknowledged !== null));
    arrange(
      this.region,
      alarms.map((alarm) => this.alarm(alarm)),
    );
  }

  alarm(alarm) {
    let made = this.shown.get(alarm.id);
    if (made === undefined) {
      made = { title: el("a", { href: sensorAddress(alarm.sensor) }), about: el("span", { class: "about" }) };
      made.button = el("button", { type: "button", click: () => this.acknowledge(alarm.id) }, t("acknowledge"));
      made.node = el(
        "div",
        { class: "banner" },
        icon("alarm"),
        el("p", {}, el("strong", {}, made.title), " ", made.about),
        made.button,
      );
      this.shown.set(alarm.id, made);
    }
    const place = alarm.place ? ` · ${alarm.place}` : "";
    say(made.title, t("alarm.title", { name: (alarm.name ?? alarm.sensor) + place }));
    const [from, to] = [alarm.since, alarm.ended].map((at) => at && time(Date.parse(at)));
    const about = [
      reading(alarm),
      to ? t("alarm.until", { from, to }) : t("alarm.since", { time: from }),
      to && t("alarm.over"),
      alarm.acknowledged && t("alarm.seen", { by: alarm.acknowledged.by }),
    ];
    say(made.about, about.filter(Boolean).join(" · "));
    made.node.classList.toggle("seen", alarm.acknowledged !== null);
    made.node.classList.toggle("over", alarm.ended !== null);
    made.button.hidden = alarm.acknowledged !== null;
    return made.node;
  }

  async acknowledge(id) {
    const { button, about } = this.shown.get(id);
    if (button.getAttribute("aria-disabled")) return;
    mark(button, "aria-disabled", "true");
    say(button, t("acknowledge.waiting"));
    try {
      await store.acknowledge(id);
      // The button is gone; who came by keyboard goes on with the page.
      document.getElementById("main").focus({ preventScroll: true });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      say(about, problemText(problem));
    } finally {
      mark(button, "aria-disabled", null);
      say(button, t("acknowledge"));
    }
  }
}

/** What raised it, and against which condition, where that says more. */
function reading(alarm) {
  const shown = store.sensors.get(alarm.sensor)?.fields.find((field) => field.field === alarm.field);
  const { unit = null, decimals = null } = shown ?? {};
  const value = withUnit(fieldValue({ ...alarm, decimals }), unit);
  const condition = alarm.condition.startsWith("==") ? "" : ` (${alarm.condition})`;
  return `${fieldName(alarm.field)} ${value}${condition}`;
}

/** What else a person should know: [key, shape, text] of each. */
function notices() {
  const found = [];
  if (store.connection === "lost") {
    found.push(["lost", "offline", t("notice.lost", { time: time(store.lostAt) })]);
    return found; // of all the rest nobody knows any more
  }
  for (const { name, state, since, warning } of store.devices.values()) {
    if (["offline", "silent", "lent"].includes(state)) {
      const shape = state === "lent" ? "info" : "offline";
      found.push([`device ${name}`, shape, t(`notice.${state}`, { device: name, time: time(Date.parse(since)) })]);
    }
    if (warning) found.push([`warning ${name}`, "info", t("notice.warning", { device: name, text: warning })]);
  }
  const { state, backlog, behind } = store.database;
  if (state === "away") found.push(["database", "stale", t("notice.away", { count: rows(backlog) })]);
  else if (behind) found.push(["database", "stale", t("notice.behind", { count: rows(backlog) })]);
  return found;
}

/** The notices, in the page's region for them. */
export class Notices {
  constructor(region) {
    this.region = region;
    this.shown = new Map();
    store.on("state", () => this.update());
    this.update();
  }

  update() {
    const found = notices();
    const keys = new Set(found.map(([key]) => key));
    for (const key of this.shown.keys()) if (!keys.has(key)) this.shown.delete(key);
    arrange(
      this.region,
      found.map(([key, shape, text]) => {
        let made = this.shown.get(key);
        if (made === undefined || made.shape !== shape) {
          made = { shape, text: el("span") };
          made.node = el("p", { class: `notice ${key.split(" ")[0]}` }, icon(shape), made.text);
          this.shown.set(key, made);
        }
        say(made.text, text);
        return made.node;
      }),
    );
  }
}
