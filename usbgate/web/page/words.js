// The texts of the page in English and French, and the choice between them.

const ENGLISH = {
  overview: "Overview",
  sensors: "Sensors",
  elsewhere: "No place set",
  skip: "Skip to the sensors",
  language: "Français",
  theme: "Theme: ",
  "theme.auto": "Auto",
  "theme.light": "Light",
  "theme.dark": "Dark",
  "connection.connecting": "connecting…",
  "connection.open": "live",
  "connection.lost": "not connected",
  "state.fresh": "up to date",
  "state.stale": "out of date",
  "state.asked": "waiting…",
  "state.failed": "no answer",
  "state.refused": "failed",
  "state.unknown": "unknown since {time}",
  "state.never": "no data yet",
  "state.alarm": "alarm",
  refresh: "Refresh",
  "refresh.waiting": "Asking…",
  answered: "{name}: {values}",
  acknowledged: "{name}: done",
  failed: "{name}: {problem}",
  now: "just now",
  ago: "{n}\u202f{unit} ago",
  "unit.day": "d",
  nothing: "no reading yet",
  "problem.timeout": "The device did not answer in time.",
  "problem.offline": "The device is not connected.",
  "problem.busy": "The device is busy.",
  "problem.limit": "Too many requests at once; try again in a moment.",
  "problem.malformed": "Invalid request: {detail}",
  "problem.denied": "Not allowed: {detail}",
  "problem.unknown": "Not found: {detail}",
  "problem.failed": "Failed: {detail}",
  "problem.stopped": "usbgate is shutting down.",
  "problem.unreachable": "usbgate is unreachable.",
  "alarm.title": "Alarm: {name}",
  "alarm.since": "since {time}",
  "alarm.until": "{from} to {to}",
  "alarm.over": "ended",
  "alarm.seen": "acknowledged by {by}",
  "alarm.device": "from {device}",
  acknowledge: "Acknowledge",
  "acknowledge.waiting": "Acknowledging…",
  "notice.lost": "No connection to usbgate since {time}. Trying again…",
  "notice.away": "The database is unreachable; {count} waiting to be stored. Nothing is lost.",
  "notice.behind": "The database is slow; {count} waiting to be stored.",
  "notice.rows.one": "{n} reading",
  "notice.rows.other": "{n} readings",
  "notice.offline": "{device} is not connected (since {time}).",
  "notice.silent": "{device} has been silent since {time}.",
  "notice.lent": "{device} is lent to another program (since {time}).",
  "notice.lent.to": "{device} is lent to {client} (since {time}).",
  "notice.warning": "{device}: {text}",
  "notice.uncompared": "{name} on {device}: {field} is “{text}”, which can’t be compared with its alarm condition {condition}.",
  "device.state": "{device}: {state}",
  "device.starting": "starting",
  "device.settling": "getting ready",
  "device.online": "online",
  "device.offline": "offline",
  "device.silent": "silent",
  "device.lent": "lent",
  "device.unknown": "unknown",
  api: "API",
  empty: "No readings received. Sensors will appear here with their first reading.",
  loading: "Loading…",
  back: "All sensors",
  missing: "No sensor “{id}” yet.",
  chart: "Chart",
  range: "Period",
  "range.1h": "1 hour",
  "range.24h": "24 hours",
  "range.7d": "7 days",
  "range.30d": "30 days",
  "range.custom": "Custom range",
  from: "From",
  to: "To",
  show: "Show",
  csv: "Download CSV",
  "zoom.hint": "Drag across the chart to zoom in.",
  "zoom.out": "Zoom out",
  least: "lowest",
  mean: "mean",
  most: "highest",
  "chart.empty": "No readings in this period.",
  "chart.label": "{field}: lowest {min}, mean {avg}, highest {max}",
  changes: "Changes: {field}",
  "changes.empty": "No changes in this period.",
  at: "Time",
  value: "Value",
  requests: "Latest requests",
  "requests.empty": "No requests yet.",
  origin: "Requested by",
  command: "Command",
  outcome: "Result",
  latency: "Duration",
  "outcome.answered": "answered",
  "outcome.recent": "recent answer",
  "outcome.timeout": "no answer",
  "outcome.offline": "offline",
  "outcome.busy": "busy",
  "outcome.unknown": "unknown",
  "outcome.failed": "failed",
  "outcome.stopped": "usbgate stopped",
  "field.VALUE": "value",
  "field.TEMP": "temperature",
  "field.HUM": "humidity",
  "field.BAT": "battery",
  "field.SMOKE": "smoke",
  "field.PRESENCE": "presence",
  "field.LEVEL": "level",
};

const FRENCH = {
  overview: "Vue d’ensemble",
  sensors: "Capteurs",
  elsewhere: "Sans emplacement",
  skip: "Aller aux capteurs",
  language: "English",
  theme: "Thème\u202f: ",
  "theme.auto": "Auto",
  "theme.light": "Clair",
  "theme.dark": "Sombre",
  "connection.connecting": "connexion…",
  "connection.open": "en direct",
  "connection.lost": "déconnecté",
  "state.fresh": "à jour",
  "state.stale": "pas à jour",
  "state.asked": "interrogation…",
  "state.failed": "pas de réponse",
  "state.refused": "échec",
  "state.unknown": "état inconnu depuis {time}",
  "state.never": "aucune donnée reçue",
  "state.alarm": "alarme",
  refresh: "Actualiser",
  "refresh.waiting": "Interrogation…",
  answered: "{name}\u202f: {values}",
  acknowledged: "{name}\u202f: commande exécutée",
  failed: "{name}\u202f: {problem}",
  now: "à l’instant",
  ago: "il y a {n}\u202f{unit}",
  "unit.day": "j",
  nothing: "aucune mesure",
  "problem.timeout": "L’appareil n’a pas répondu à temps.",
  "problem.offline": "L’appareil n’est pas connecté.",
  "problem.busy": "L’appareil est occupé.",
  "problem.limit": "Trop de demandes à la fois\u202f; réessayez dans un instant.",
  "problem.malformed": "Demande invalide\u202f: {detail}",
  "problem.denied": "Non autorisé\u202f: {detail}",
  "problem.unknown": "Introuvable\u202f: {detail}",
  "problem.failed": "Échec\u202f: {detail}",
  "problem.stopped": "usbgate s’arrête.",
  "problem.unreachable": "usbgate est injoignable.",
  "alarm.title": "Alarme\u202f: {name}",
  "alarm.since": "depuis {time}",
  "alarm.until": "de {from} à {to}",
  "alarm.over": "terminée",
  "alarm.seen": "acquittée par {by}",
  "alarm.device": "de {device}",
  acknowledge: "Acquitter",
  "acknowledge.waiting": "Acquittement…",
  "notice.lost": "Pas de connexion à usbgate depuis {time}. Nouvelle tentative…",
  "notice.away": "La base de données est injoignable\u202f; {count} en attente. Rien n’est perdu.",
  "notice.behind": "La base de données est lente\u202f; {count} en attente.",
  "notice.rows.one": "{n} mesure",
  "notice.rows.other": "{n} mesures",
  "notice.offline": "{device} n’est pas connecté (depuis {time}).",
  "notice.silent": "{device} n’a rien envoyé depuis {time}.",
  "notice.lent": "{device} est prêté à un autre programme (depuis {time}).",
  "notice.lent.to": "{device} est prêté à {client} (depuis {time}).",
  "notice.warning": "{device}\u202f: {text}",
  "notice.uncompared": "{name} sur {device}\u202f: {field} vaut «\u202f{text}\u202f», incomparable à sa condition d’alarme {condition}.",
  "device.state": "{device}\u202f: {state}",
  "device.starting": "démarrage",
  "device.settling": "préparation",
  "device.online": "en ligne",
  "device.offline": "hors ligne",
  "device.silent": "silencieux",
  "device.lent": "prêté",
  "device.unknown": "état inconnu",
  api: "API",
  empty: "Aucune mesure reçue. Les capteurs apparaîtront ici dès leur première mesure.",
  loading: "Chargement…",
  back: "Tous les capteurs",
  missing: "Aucun capteur «\u202f{id}\u202f» pour l’instant.",
  chart: "Courbe",
  range: "Période",
  "range.1h": "1 heure",
  "range.24h": "24 heures",
  "range.7d": "7 jours",
  "range.30d": "30 jours",
  "range.custom": "Période…",
  from: "Du",
  to: "Au",
  show: "Afficher",
  csv: "Télécharger le CSV",
  "zoom.hint": "Faites glisser sur la courbe pour zoomer.",
  "zoom.out": "Zoom arrière",
  least: "minimum",
  mean: "moyenne",
  most: "maximum",
  "chart.empty": "Aucune mesure sur cette période.",
  "chart.label": "{field}\u202f: minimum {min}, moyenne {avg}, maximum {max}",
  changes: "Changements\u202f: {field}",
  "changes.empty": "Aucun changement sur cette période.",
  at: "Heure",
  value: "Valeur",
  requests: "Dernières demandes",
  "requests.empty": "Aucune demande pour l’instant.",
  origin: "Demandé par",
  command: "Commande",
  outcome: "Résultat",
  latency: "Durée",
  "outcome.answered": "réponse reçue",
  "outcome.recent": "réponse récente",
  "outcome.timeout": "pas de réponse",
  "outcome.offline": "hors ligne",
  "outcome.busy": "occupé",
  "outcome.unknown": "inconnu",
  "outcome.failed": "échec",
  "outcome.stopped": "arrêt d’usbgate",
  "field.VALUE": "valeur",
  "field.TEMP": "température",
  "field.HUM": "humidité",
  "field.BAT": "pile",
  "field.SMOKE": "fumée",
  "field.PRESENCE": "présence",
  "field.LEVEL": "niveau",
};

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

/** The text for a problem. */
export function problemText(problem) {
  const key = `problem.${problem.code}`;
  return key in LANGUAGES[chosen] ? t(key, { detail: problem.message }) : problem.message;
}

/** The text for a number of readings. */
export function rows(n) {
  const form = new Intl.PluralRules(chosen).select(n) === "one" ? "one" : "other";
  return t(`notice.rows.${form}`, { n: new Intl.NumberFormat(locale()).format(n) });
}
