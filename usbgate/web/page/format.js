// Numbers and times in the format of the page's language.

import { locale, t, word } from "./words.js";

const made = new Map();

// Intl's objects are expensive to make.
function kept(kind, options) {
  const key = `${locale()} ${kind.name} ${JSON.stringify(options)}`;
  if (!made.has(key)) made.set(key, new kind(locale(), options));
  return made.get(key);
}

export function number(value, decimals = null) {
  const options =
    decimals === null
      ? { maximumFractionDigits: 6 }
      : { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return kept(Intl.NumberFormat, options).format(value);
}

/** A computed number, or one on an axis, without needless digits. */
export function rough(value) {
  return kept(Intl.NumberFormat, { maximumFractionDigits: Math.abs(value) < 1 ? 4 : 2 }).format(value);
}

/** The value of a field without its unit. */
export function fieldValue(field) {
  return field.value === null || field.text !== null ? (field.text ?? "") : number(field.value, field.decimals);
}

export function withUnit(text, unit) {
  return unit ? `${text}\u202f${unit}` : text;
}

export function fieldName(field) {
  return word(`field.${field}`, field);
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

/** A time in ms, with its day unless it is today. */
export function time(at) {
  const date = new Date(at);
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  const today = date.toDateString() === new Date().toDateString();
  return kept(Intl.DateTimeFormat, today ? clock : { day: "numeric", month: "short", ...clock }).format(date);
}

/** A time in ms on an axis whose labels are `seconds` apart. */
export function tick(at, seconds, first) {
  const date = new Date(at);
  const midnight = date.getHours() === 0 && date.getMinutes() === 0;
  if (seconds >= 86_400 || (midnight && seconds >= 60) || (first && seconds >= 10_800)) {
    return kept(Intl.DateTimeFormat, { day: "numeric", month: "short" }).format(date);
  }
  const clock = { hour: "2-digit", minute: "2-digit" };
  return kept(Intl.DateTimeFormat, seconds < 60 ? { ...clock, second: "2-digit" } : clock).format(date);
}

export function duration(ms) {
  return ms < 1000 ? `${number(Math.round(ms))}\u202fms` : `${number(ms / 1000, 1)}\u202fs`;
}
