// Numbers and times in the format of the page's language.

import { kindWords } from "./kinds.js";
import { language, locale, t, word } from "./words.js";

const DIGITS = 15; // as many as the spelling of a number can have
const SMALL = 0.01; // below it, a number needs more decimals

const made = new Map();

// Intl's objects are expensive to make.
function kept(kind, options) {
  const key = `${locale()} ${kind.name} ${JSON.stringify(options)}`;
  if (!made.has(key)) made.set(key, new kind(locale(), options));
  return made.get(key);
}

/** A number as it is: with all its digits, or with so many decimals. */
export function number(value, decimals = null) {
  if (decimals !== null) {
    const options = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
    return kept(Intl.NumberFormat, options).format(value);
  }
  const exact = kept(Intl.NumberFormat, { maximumSignificantDigits: DIGITS });
  const [digits, exponent] = String(value).split("e");
  return exponent === undefined ? exact.format(value) : `${exact.format(digits)}e${Number(exponent)}`;
}

/** A computed number, or one on an axis, without needless digits. */
export function rough(value) {
  if (Math.abs(value) < SMALL) return number(Number(value.toPrecision(3)));
  return kept(Intl.NumberFormat, { maximumFractionDigits: Math.abs(value) < 1 ? 4 : 2 }).format(value);
}

/** Compare two names: without case, and with numbers by their size. */
export function byName(a, b) {
  return kept(Intl.Collator, { numeric: true }).compare(a, b);
}

/** A text as it is compared in a search: without case and accents. */
export function searchText(text) {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}

/** A text of the configuration, which is for all languages or by language. */
function inLanguage(texts) {
  return typeof texts === "string" ? texts : (texts[language()] ?? Object.values(texts)[0]);
}

/** The words for the value of a field, from the configuration or from its kind; null if there are none. */
function valueWords({ value, text, values, kind }) {
  const key = text ?? String(value);
  if (values && Object.hasOwn(values, key)) return inLanguage(values[key]);
  const [, off, on] = kindWords(kind, language());
  return { 0: off, OFF: off, 1: on, ON: on }[key.toUpperCase()] ?? null;
}

/** The value of a field without its unit. */
export function fieldValue(field) {
  const words = valueWords(field);
  if (words !== null) return words;
  return field.value === null || field.text !== null ? (field.text ?? "") : number(field.value, field.decimals);
}

/** The unit of the value of a field; null for words and other texts. */
export function fieldUnit(field) {
  return field.value === null || valueWords(field) !== null ? null : field.unit;
}

/** The value of a field with its unit. */
export function fieldText(field) {
  return withUnit(fieldValue(field), fieldUnit(field));
}

/** The condition of the alarm of a field, or the rule that raised it. */
export function conditionText(field, condition) {
  if (condition.startsWith("rule ")) return t("alarm.rule", { name: condition.slice(5) });
  const [, value] = /^== (.+)$/.exec(condition) ?? [];
  const words = value === undefined ? null : valueWords({ ...field, value: null, text: value });
  return words ?? withUnit(condition, field.unit);
}

/** What the alarm of a rule says instead of a reading: that a sensor is out of date, or the state of a device. */
export function ruleText({ condition, field, text }) {
  if (!condition.startsWith("rule ") || text !== field.toLowerCase()) return null;
  return text === "stale" ? t("state.stale") : word(`device.${text}`, text === "time" ? "" : null);
}

/** Whether an alarm is about a sensor, and not about a device or only the time. */
export function isOfSensor(alarm) {
  return ruleText(alarm) === null || alarm.text === "stale";
}

export function withUnit(text, unit) {
  return unit ? `${text}\u202f${unit}` : text;
}

/** What a field is called: in the configuration, by its kind, or else by its name. */
export function fieldLabel({ field, label, kind }) {
  if (label) return inLanguage(label);
  return kindWords(kind, language())[0] ?? word(`field.${field}`, field);
}

/** An age in seconds, as "2 min ago". */
export function ago(seconds) {
  if (seconds < 2) return t("now");
  const [n, unit] =
    seconds < 60 ? [seconds, "s"]
    : seconds < 3600 ? [seconds / 60, "min"]
    : seconds < 86_400 ? [seconds / 3600, "h"]
    : [seconds / 86_400, t("unit.day")];
  return t("ago", { n: number(Math.floor(n)), unit });
}

/** A time in ms, with its day unless it is today, and its year unless it is this one. */
export function time(at) {
  const [date, now] = [new Date(at), new Date()];
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  if (date.toDateString() === now.toDateString()) return kept(Intl.DateTimeFormat, clock).format(date);
  const year = date.getFullYear() === now.getFullYear() ? {} : { year: "numeric" };
  return kept(Intl.DateTimeFormat, { day: "numeric", month: "short", ...year, ...clock }).format(date);
}

/** A time of day in ms, in hours and minutes. */
export function clock(at) {
  return kept(Intl.DateTimeFormat, { hour: "2-digit", minute: "2-digit" }).format(new Date(at));
}

/** What stands between the digits of a number and its decimals. */
export function decimalSign() {
  return kept(Intl.NumberFormat, {}).formatToParts(1.5).find(({ type }) => type === "decimal").value;
}

/** Whether times within a period of so many ms need their day. */
export function isLong(period) {
  return period > 86_400_000;
}

/** A time in ms within a period of so many ms. */
export function moment(at, period) {
  const clock = { hour: "2-digit", minute: "2-digit" };
  const options = isLong(period) ? { day: "numeric", month: "short", ...clock } : clock;
  return kept(Intl.DateTimeFormat, options).format(new Date(at));
}

/** How long something lasted, in ms, in its two largest units: "2 h 5 min". */
export function length(ms) {
  const seconds = Math.round(ms / 1000);
  const units = [[86_400, t("unit.day")], [3600, "h"], [60, "min"], [1, "s"]];
  const first = units.findIndex(([size]) => seconds >= size);
  if (first === -1) return withUnit("0", "s");
  const [[size, unit], next] = [units[first], units[first + 1]];
  const parts = [withUnit(number(Math.floor(seconds / size)), unit)];
  const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
  if (rest) parts.push(withUnit(number(rest), next[1]));
  return parts.join(" ");
}

function day(at) {
  return kept(Intl.DateTimeFormat, { day: "numeric", month: "short" }).format(new Date(at));
}

/**
 * The labels of an axis for times in ms, `seconds` apart: days, or times of day. If none is a day, the first one has the
 * day in a second line.
 */
export function ticks(times, seconds) {
  const labels = times.map((at) => tick(at, seconds));
  if (times.length && !times.some((at, n) => labels[n] === day(at))) labels[0] += `\n${day(times[0])}`;
  return labels;
}

function tick(at, seconds) {
  const date = new Date(at);
  const midnight = date.getHours() === 0 && date.getMinutes() === 0;
  if (seconds >= 86_400 || (midnight && seconds >= 60)) return day(at);
  const clock = { hour: "2-digit", minute: "2-digit" };
  return kept(Intl.DateTimeFormat, seconds < 60 ? { ...clock, second: "2-digit" } : clock).format(date);
}

export function duration(ms) {
  return ms < 1000 ? `${number(Math.round(ms))}\u202fms` : `${number(ms / 1000, 1)}\u202fs`;
}
