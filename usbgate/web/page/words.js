// What the page says, in English and French, and which of them.

const ENGLISH = {
  overview: "Overview",
  sensors: "Sensors",
  elsewhere: "Elsewhere",
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
  "state.stale": "stale",
  "state.asked": "asked…",
  "state.failed": "no answer",
  "state.refused": "failed",
  "state.offline": "device offline",
  "state.lent": "device lent",
  "state.never": "not heard yet",
  "state.alarm": "alarm",
  refresh: "Refresh",
  "refresh.waiting": "Asking…",
  answered: "{name}: {values}",
  acknowledged: "{name}: done",
  failed: "{name}: {problem}",
  now: "just now",
  nothing: "no reading yet",
  "problem.timeout": "It did not answer in time.",
  "problem.offline": "Its device is not connected.",
  "problem.busy": "Its device had no time for the question.",
  "problem.limit": "Too many questions at once; try again in a moment.",
  "problem.malformed": "usbgate does not understand the question: {detail}",
  "problem.denied": "usbgate does not allow it: {detail}",
  "problem.unknown": "usbgate does not know it: {detail}",
  "problem.failed": "It failed: {detail}",
  "problem.stopped": "usbgate is ending.",
  "problem.unreachable": "usbgate can't be reached.",
  "alarm.title": "Alarm: {name}",
  "alarm.since": "since {time}",
  "alarm.until": "{from} to {to}",
  "alarm.over": "over",
  "alarm.seen": "acknowledged by {by}",
  acknowledge: "Acknowledge",
  "acknowledge.waiting": "Acknowledging…",
  "notice.lost": "No connection to usbgate since {time}. What you see may be old; trying again…",
  "notice.away": "The database is away. Nothing is lost: {count} wait for it.",
  "notice.behind": "The database is behind: {count} wait for it.",
  "notice.rows.one": "{n} row",
  "notice.rows.other": "{n} rows",
  "notice.offline": "{device} is not connected (since {time}).",
  "notice.silent": "{device} has said nothing since {time}.",
  "notice.lent": "{device} is lent to another program (since {time}).",
  "notice.warning": "{device}: {text}",
  "device.starting": "starting",
  "device.settling": "settling",
  "device.online": "online",
  "device.offline": "offline",
  "device.silent": "silent",
  "device.lent": "lent",
  api: "API",
  empty: "No sensor has spoken yet. Each one appears here when it does.",
  loading: "Loading…",
  back: "All sensors",
  missing: "There is no sensor “{id}” (yet).",
  chart: "Chart",
  range: "Time",
  "range.1h": "1 hour",
  "range.24h": "24 hours",
  "range.7d": "7 days",
  "range.30d": "30 days",
  "range.custom": "From … to",
  from: "From",
  to: "To",
  show: "Show",
  csv: "Download CSV",
  "zoom.hint": "Drag over the chart to zoom.",
  "zoom.out": "Zoom out",
  least: "lowest",
  mean: "mean",
  most: "highest",
  "chart.empty": "No reading in this time.",
  "chart.label": "{field}: lowest {min}, mean {avg}, highest {max}",
  changes: "Changes: {field}",
  "changes.empty": "No change in this time.",
  at: "Time",
  value: "Value",
  requests: "Last requests",
  "requests.empty": "Nobody has asked it yet.",
  origin: "Asked by",
  command: "Command",
  outcome: "Outcome",
  latency: "Took",
  "outcome.answered": "answered",
  "outcome.recent": "from memory",
  "outcome.timeout": "no answer",
  "outcome.offline": "offline",
  "outcome.busy": "busy",
  "outcome.unknown": "unknown",
  "outcome.failed": "failed",
  "outcome.stopped": "usbgate ended",
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
  elsewhere: "Ailleurs",
  skip: "Aller aux capteurs",
  language: "English",
  theme: "Thème : ",
  "theme.auto": "Auto",
  "theme.light": "Clair",
  "theme.dark": "Sombre",
  "connection.connecting": "connexion…",
  "connection.open": "en direct",
  "connection.lost": "non connecté",
  "state.fresh": "à jour",
  "state.stale": "ancien",
  "state.asked": "demandé…",
  "state.failed": "pas de réponse",
  "state.refused": "échec",
  "state.offline": "appareil hors ligne",
  "state.lent": "appareil prêté",
  "state.never": "pas encore entendu",
  "state.alarm": "alarme",
  refresh: "Actualiser",
  "refresh.waiting": "Demande…",
  answered: "{name} : {values}",
  acknowledged: "{name} : fait",
  failed: "{name} : {problem}",
  now: "à l’instant",
  nothing: "aucune mesure",
  "problem.timeout": "Il n’a pas répondu à temps.",
  "problem.offline": "Son appareil n’est pas connecté.",
  "problem.busy": "Son appareil n’a pas eu le temps de traiter la question.",
  "problem.limit": "Trop de questions à la fois ; réessayez dans un instant.",
  "problem.malformed": "usbgate ne comprend pas la question : {detail}",
  "problem.denied": "usbgate ne le permet pas : {detail}",
  "problem.unknown": "usbgate ne le connaît pas : {detail}",
  "problem.failed": "Échec : {detail}",
  "problem.stopped": "usbgate s’arrête.",
  "problem.unreachable": "usbgate est injoignable.",
  "alarm.title": "Alarme : {name}",
  "alarm.since": "depuis {time}",
  "alarm.until": "de {from} à {to}",
  "alarm.over": "terminée",
  "alarm.seen": "acquittée par {by}",
  acknowledge: "Acquitter",
  "acknowledge.waiting": "Acquittement…",
  "notice.lost": "Pas de connexion à usbgate depuis {time}. L’affichage peut dater ; nouvel essai…",
  "notice.away": "La base de données est absente. Rien n’est perdu : {count} en attente.",
  "notice.behind": "La base de données est en retard : {count} en attente.",
  "notice.rows.one": "{n} ligne",
  "notice.rows.other": "{n} lignes",
  "notice.offline": "{device} n’est pas connecté (depuis {time}).",
  "notice.silent": "{device} n’a rien dit depuis {time}.",
  "notice.lent": "{device} est prêté à un autre programme (depuis {time}).",
  "notice.warning": "{device} : {text}",
  "device.starting": "démarre",
  "device.settling": "se prépare",
  "device.online": "en ligne",
  "device.offline": "hors ligne",
  "device.silent": "silencieux",
  "device.lent": "prêté",
  api: "API",
  empty: "Aucun capteur n’a encore parlé. Chacun apparaît ici dès qu’il le fait.",
  loading: "Chargement…",
  back: "Tous les capteurs",
  missing: "Il n’y a pas (encore) de capteur « {id} ».",
  chart: "Courbe",
  range: "Durée",
  "range.1h": "1 heure",
  "range.24h": "24 heures",
  "range.7d": "7 jours",
  "range.30d": "30 jours",
  "range.custom": "De … à",
  from: "De",
  to: "À",
  show: "Afficher",
  csv: "Télécharger en CSV",
  "zoom.hint": "Glissez sur la courbe pour zoomer.",
  "zoom.out": "Dézoomer",
  least: "minimum",
  mean: "moyenne",
  most: "maximum",
  "chart.empty": "Aucune mesure sur cette durée.",
  "chart.label": "{field} : minimum {min}, moyenne {avg}, maximum {max}",
  changes: "Changements : {field}",
  "changes.empty": "Aucun changement sur cette durée.",
  at: "Heure",
  value: "Valeur",
  requests: "Dernières demandes",
  "requests.empty": "Personne ne l’a encore interrogé.",
  origin: "Demandé par",
  command: "Commande",
  outcome: "Résultat",
  latency: "Durée",
  "outcome.answered": "répondu",
  "outcome.recent": "de mémoire",
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

/** Speak a language from now on; of one that we don't know, English. */
export function speak(language) {
  chosen = language in LANGUAGES ? language : "en";
  document.documentElement.lang = chosen;
}

/** The language that is spoken. */
export function language() {
  return chosen;
}

/** What it is in detail, such as en-GB: how the browser's person writes numbers and times in it. */
export function locale() {
  return (navigator.languages ?? []).find((tag) => tag.slice(0, 2).toLowerCase() === chosen) ?? chosen;
}

/** The other one. */
export function otherLanguage() {
  return chosen === "fr" ? "en" : "fr";
}

/** Which of ours the browser would like best. */
export function preferredLanguage() {
  const wanted = (navigator.languages ?? [navigator.language]).map((tag) => tag.slice(0, 2).toLowerCase());
  return wanted.find((tag) => tag in LANGUAGES) ?? "en";
}

/** Say something. */
export function t(key, values = {}) {
  return LANGUAGES[chosen][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Say something that we may have no words for. */
export function word(key, otherwise) {
  return Object.hasOwn(LANGUAGES[chosen], key) ? LANGUAGES[chosen][key] : otherwise;
}

/** Say why something failed. */
export function problemText(problem) {
  const key = `problem.${problem.code}`;
  return key in LANGUAGES[chosen] ? t(key, { detail: problem.message }) : problem.message;
}

/** Say how many rows. */
export function rows(n) {
  const form = new Intl.PluralRules(chosen).select(n) === "one" ? "one" : "other";
  return t(`notice.rows.${form}`, { n: new Intl.NumberFormat(locale()).format(n) });
}
