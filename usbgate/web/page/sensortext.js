// What is shown of a sensor in every view: its name, its state, and how old its values are.

import { el, icon, setAttribute, setText } from "./dom.js";
import { ago, fieldText, time } from "./format.js";
import { store } from "./store.js";
import { problemText, t } from "./words.js";

export function sensorAddress(id) {
  return `#/sensor/${encodeURIComponent(id)}`;
}

export function sensorName(sensor) {
  return sensor.name ?? sensor.id;
}

/** What is shown in place of sensors: `none` if there are none, or else why that is not known. */
export function emptyText(none) {
  return store.loaded ? none : t(store.connection === "lost" ? "empty.away" : "loading");
}

/** A sensor's state: its shape, and its text. */
function stateOf(sensor) {
  const failed = store.asks.failed(sensor.id);
  const alarming = sensor.fields.some((field) => field.alarming);
  const since = store.unknownSince(sensor);
  if ([...store.asks.of(sensor.id).values()].some(({ state }) => state === "waiting")) return ["asked", t("state.asked")];
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
  return sensor.stale || store.asks.unanswered.has(sensor.id) || store.unknownSince(sensor) !== null;
}

/** Show a sensor's name and state in a view: in its `title` and `state`, and on its `node`. */
export function showSensor(view, sensor, stateClass) {
  setText(view.title, sensorName(sensor));
  view.title.classList.toggle("named", sensor.name !== null);
  const [shape, text] = stateOf(sensor);
  if (view.shown !== shape + text) {
    view.shown = shape + text;
    view.state.className = `state ${shape}`;
    view.state.replaceChildren(icon(shape), el("span", stateClass ? { class: stateClass } : {}, text));
  }
  setAttribute(view.node, "data-state", shape);
  view.node.classList.toggle("old", isOld(sensor));
}

/** How long ago a sensor's newest reading was made; "" if there is none. */
export function ageText(sensor) {
  const at = sensor.fields.reduce((last, field) => (field.at > last ? field.at : last), "");
  return at ? ago((store.now() - Date.parse(at)) / 1000) : "";
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
