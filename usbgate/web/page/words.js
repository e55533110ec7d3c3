// The texts of the page, and the choice of their language.

import { ENGLISH } from "./english.js";
import { FRENCH } from "./french.js";

const LANGUAGES = { en: ENGLISH, fr: FRENCH };

let chosen = "en";

/** Choose a language; English if there are no texts in it. */
export function setLanguage(language) {
  chosen = language in LANGUAGES ? language : "en";
  document.documentElement.lang = chosen;
}

/** The chosen language. */
export function language() {
  return chosen;
}

/** The browser's variant of the language, such as en-GB, for numbers and times. */
export function locale() {
  return (navigator.languages ?? []).find((tag) => tag.slice(0, 2).toLowerCase() === chosen) ?? chosen;
}

/** The language that is not chosen. */
export function otherLanguage() {
  return chosen === "fr" ? "en" : "fr";
}

/** The first of the browser's languages in which there are texts. */
export function preferredLanguage() {
  const wanted = (navigator.languages ?? [navigator.language]).map((tag) => tag.slice(0, 2).toLowerCase());
  return wanted.find((tag) => tag in LANGUAGES) ?? "en";
}

/** The text for a key, with values for its `{name}`s. */
export function t(key, values = {}) {
  return LANGUAGES[chosen][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** The text for a key, if there is one. */
export function word(key, otherwise) {
  return Object.hasOwn(LANGUAGES[chosen], key) ? LANGUAGES[chosen][key] : otherwise;
}

/** The text for a problem: for its reason, if there is one, else for its code. */
export function problemText({ code, reason, role, message }) {
  const keys = [`problem.${code}.${reason}`, `problem.${code}`, "problem.failed"];
  return t(keys.find((key) => Object.hasOwn(LANGUAGES[chosen], key)), { detail: message, role });
}

/** The text for a warning about a device. */
export function warningText(device, { reason, about, text }) {
  const key = `warning.${reason}`;
  return Object.hasOwn(LANGUAGES[chosen], key) ? t(key, { device, about }) : `${device}: ${text}`;
}

/** The text for a number of things, such as "notice.rows". */
export function count(key, n) {
  const form = new Intl.PluralRules(chosen).select(n) === "one" ? "one" : "other";
  return t(`${key}.${form}`, { n: new Intl.NumberFormat(locale()).format(n) });
}
