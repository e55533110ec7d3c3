// The top of the page: alarms until they are acknowledged, and notices of what is wrong.

import { Problem } from "./api.js";
import { arrange, el, icon, setAttribute, setText } from "./dom.js";
import { conditionText, fieldLabel, fieldText, isOfSensor, ruleText, time } from "./format.js";
import { kept, remember } from "./memory.js";
import { sensorAddress } from "./sensortext.js";
import { store } from "./store.js";
import { count, problemText, t, warningText } from "./words.js";

/** The alarms, in a live region. Each keeps its element, so that only new ones are announced. */
export class Alarms {
  constructor(region) {
    this.region = region;
    this.shown = new Map();
    store.on("alarms", () => this.update());
    this.update();
  }

  /** The alarms that are not acknowledged, for the title of the page. */
  static get unacknowledged() {
    return [...store.alarms.values()].filter((alarm) => alarm.acknowledged === null);
  }

  update() {
    for (const id of this.shown.keys()) if (!store.alarms.has(id)) this.shown.delete(id);
    // Those that are not acknowledged come first.
    const alarms = [...store.alarms.values()].sort((a, b) => (a.acknowledged !== null) - (b.acknowledged !== null));
    arrange(
      this.region,
      alarms.map((alarm) => this.alarm(alarm)),
    );
  }

  alarm(alarm) {
    let made = this.shown.get(alarm.id);
    if (made === undefined) {
      const address = isOfSensor(alarm) ? sensorAddress(alarm.sensor) : null;
      made = { title: el(address ? "a" : "span", { href: address }), about: el("span", { class: "about" }) };
      const label = t("alarm.name");
      const entered = ({ key, isComposing }) => key === "Enter" && !isComposing && this.acknowledge(alarm.id);
      made.by = el("input", {
        ...{ type: "text", placeholder: label, "aria-label": label, maxlength: 200, autocomplete: "name" },
        keydown: entered,
      });
      made.by.value = kept("by") ?? "";
      made.button = el("button", { type: "button", click: () => this.acknowledge(alarm.id) }, t("acknowledge"));
      made.problem = el("p", { class: "trouble", hidden: true });
      made.node = el(
        "div",
        { class: "banner" },
        icon("alarm"),
        el("p", {}, el("strong", {}, made.title), " ", made.about),
        made.by,
        made.button,
        made.problem,
      );
      this.shown.set(alarm.id, made);
    }
    const place = alarm.place ? ` · ${alarm.place}` : "";
    setText(made.title, t("alarm.title", { name: (alarm.name ?? alarm.sensor) + place }));
    const [from, to] = [alarm.since, alarm.ended].map((at) => at && time(Date.parse(at)));
    const about = [
      reading(alarm),
      isFromAnother(alarm) && t("alarm.device", { device: alarm.device }),
      to ? t("alarm.until", { from, to }) : t("alarm.since", { time: from }),
      to && t("alarm.over"),
      alarm.acknowledged && t("alarm.seen", { by: alarm.acknowledged.by }),
    ];
    setText(made.about, about.filter(Boolean).join(" · "));
    made.node.classList.toggle("seen", alarm.acknowledged !== null);
    made.node.classList.toggle("over", alarm.ended !== null);
    made.button.hidden = made.by.hidden = alarm.acknowledged !== null;
    return made.node;
  }

  async acknowledge(id) {
    const { by, button, problem: trouble } = this.shown.get(id);
    if (button.getAttribute("aria-disabled")) return;
    setAttribute(button, "aria-disabled", "true");
    setText(button, t("acknowledge.waiting"));
    trouble.hidden = true;
    try {
      await store.acknowledge(id, by.value.trim());
      remember("by", by.value.trim());
      // The button is gone: move the focus of a keyboard.
      document.getElementById("main").focus({ preventScroll: true });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      trouble.hidden = false;
      setText(trouble, problemText(problem));
    } finally {
      setAttribute(button, "aria-disabled", null);
      setText(button, t("acknowledge"));
    }
  }
}

/** Whether an alarm is about what another device than the one that is asked reports of a sensor. */
function isFromAnother(alarm) {
  return isOfSensor(alarm) && store.sensors.get(alarm.sensor)?.device !== alarm.device;
}

/** The reading that raised the alarm, and the condition unless it repeats the reading. */
function reading(alarm) {
  const field = store.field(alarm.sensor, alarm.field);
  const said = ruleText(alarm);
  const limit = conditionText(field, alarm.condition);
  if (said !== null) return said ? `${said} (${limit})` : limit;
  const condition = alarm.condition.startsWith("==") ? "" : ` (${limit})`;
  return `${fieldLabel(field)} ${fieldText({ ...field, value: alarm.value, text: alarm.text })}${condition}`;
}

/** The notices: [key, shape, text] each. */
function notices() {
  const found = [];
  if (store.connection === "lost") {
    found.push(["lost", "offline", t("notice.lost", { time: time(store.lostAt) })]);
    return found; // nothing else is known
  }
  for (const each of store.devices.values()) {
    const { name, state, since, warnings, lent_to: client } = each;
    if (["offline", "silent", "lent"].includes(state)) {
      const shape = state === "lent" ? "info" : "offline";
      const at = time(state === "silent" ? store.lastReport(each) : Date.parse(since));
      const key = state === "lent" && client ? "notice.lent.to" : `notice.${state}`;
      found.push([`device ${name}`, shape, t(key, { device: name, client, time: at })]);
    }
    for (const warning of warnings) found.push([`warning ${name} ${warning.reason}`, "info", warningText(name, warning)]);
  }
  for (const { device, sensor, field, condition, text } of store.uncompared) {
    const name = store.sensors.get(sensor)?.name ?? sensor;
    const about = t("notice.uncompared", { device, name, field: fieldLabel(store.field(sensor, field)), condition, text });
    found.push([`uncompared ${device} ${sensor} ${field}`, "stale", about]);
  }
  const { state, backlog, behind } = store.database;
  if (state === "away") found.push(["database", "stale", t("notice.away", { count: count("notice.rows", backlog) })]);
  else if (behind) found.push(["database", "stale", t("notice.behind", { count: count("notice.rows", backlog) })]);
  if (["away", "refused"].includes(store.broker?.state)) found.push(["broker", "stale", t("notice.broker")]);
  return found;
}

/** The notices, in a live region. */
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
        setText(made.text, text);
        return made.node;
      }),
    );
  }
}
