// Puts the parts of the page together, and shows the view that the address names.

import { Alarms, Notices } from "./alarms.js";
import { el, icon, setAttribute, setText } from "./dom.js";
import { LOGIN, LoginView, logOut, loginForm, session } from "./login.js";
import { choice, remember } from "./memory.js";
import { Offers } from "./offers.js";
import { Overview } from "./overview.js";
import { AlarmsView } from "./pastalarms.js";
import { SensorView } from "./sensor.js";
import { outcomeText } from "./sensortext.js";
import { store } from "./store.js";
import { Wall } from "./wall.js";
import { otherLanguage, language, preferredLanguage, setLanguage, t } from "./words.js";

const THEMES = ["auto", "light", "dark"];
const LOWER = ["read", "ask"]; // roles of people who may find a reason to log in

const [top_, main, bottom, announcement, skip, alarmRegion, noticeRegion, offerRegion] = [
  ...["top", "main", "bottom", "announcement", "skip", "alarms", "notices", "offers"],
].map((id) => document.getElementById(id));

let view = null;
let user = null; // see `session`
let theme = choice("theme", THEMES) ?? "auto";

// The frame around the views.

function showTop() {
  const logo = el("img", { src: "icon.svg", alt: "", width: 28, height: 28 });
  const brand = el("a", { class: "brand", href: "#/" }, logo, el("span", { class: "long" }, "usbgate"));
  const connection = el("span", { class: "connection", id: "connection" });
  const themeButton = el(
    "button",
    { type: "button", class: "plain", id: "theme", click: nextTheme },
    icon(theme),
    el("span", { class: "long" }, t("theme"), t(`theme.${theme}`)),
  );
  const languageButton = el(
    "button",
    { type: "button", class: "plain", id: "language", lang: otherLanguage(), click: nextLanguage },
    el("span", { class: "long" }, t("language")),
    el("span", { class: "short", "aria-hidden": "true" }, otherLanguage().toUpperCase()),
  );
  const past = el("a", { class: "button plain", href: "#/alarms" }, t("alarms"));
  top_.replaceChildren(brand, connection, el("div", { class: "choices" }, past, themeButton, languageButton));
  setText(skip, t("skip"));
}

function showConnection() {
  const shape = { open: "fresh", lost: "offline", connecting: "asked" }[store.connection];
  const node = document.getElementById("connection");
  if (node.dataset.state !== store.connection || node.lang !== language()) {
    node.replaceChildren(icon(shape), t(`connection.${store.connection}`));
    node.className = `connection state ${shape}`;
    node.dataset.state = store.connection;
    node.lang = language();
  }
  const stateOf = ({ state }) => t(store.connection === "lost" ? "device.unknown" : `device.${state}`);
  const devices = [...store.devices.values()].map((each) => t("device.state", { device: each.name, state: stateOf(each) }));
  bottom.replaceChildren(
    el("span", {}, ["usbgate", store.version].join(" ").trim()),
    ...devices.map((text) => el("span", {}, text)),
    user?.open ? el("span", { class: "problem" }, t("open")) : "",
    el("a", { href: "#/wall/" }, t("wall")),
    el("a", { href: "api/v1/openapi.json" }, t("api")),
    user?.name ? el("button", { type: "button", class: "plain", id: "logout", click: logOut }, t("logout", user)) : "",
    !user?.name && LOWER.includes(user?.role) ? el("a", { href: LOGIN }, t("login")) : "",
  );
}

function showTitle() {
  const [first] = Alarms.unacknowledged;
  const alarm = first ? `⚠ ${first.name ?? first.sensor} · ` : "";
  document.title = alarm + view.title;
}

// Theme and language.

function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  remember("theme", theme);
  paint();
  showTop();
  showConnection();
  document.getElementById("theme").focus();
}

function paint() {
  setAttribute(document.documentElement, "data-theme", theme === "auto" ? null : theme);
  view?.repaint?.();
}

function nextLanguage() {
  setLanguage(otherLanguage());
  remember("language", language());
  showAll();
  document.getElementById("language").focus();
}

// Views.

function open() {
  view?.close();
  const [, kind, name] = /^#\/([a-z]+)\/?(.*)$/.exec(location.hash) ?? [];
  if (kind === "sensor") view = new SensorView(decode(name));
  else if (kind === "wall") view = new Wall(decode(name));
  else if (location.hash === LOGIN) view = new LoginView();
  else view = kind === "alarms" ? new AlarmsView() : new Overview();
  document.body.classList.toggle("on-wall", kind === "wall");
  main.replaceChildren(view.node);
  view.update();
  showTitle();
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Show what the address names, with the focus on its heading, or on the card that one came from. */
function go() {
  const left = view instanceof SensorView ? view.id : null;
  if (location.hash === "#main") return;
  open();
  const card = [...main.querySelectorAll("[data-sensor]")].find((each) => each.dataset.sensor === left);
  const link = card?.querySelector("a");
  (link ?? main.querySelector("h1")).focus();
  if (!link) window.scrollTo(0, 0);
}

function showAll() {
  showTop();
  showConnection();
  alarms.shown.clear();
  notices.shown.clear();
  alarms.update();
  notices.update();
  offers.update();
  open();
}

setLanguage(choice("language", ["en", "fr"]) ?? preferredLanguage());
paint();
const alarms = new Alarms(alarmRegion);
const notices = new Notices(noticeRegion);
const offers = new Offers(offerRegion);
showAll();
skip.addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", go);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
store.on("state", showConnection);
store.on("denied", async () => (await session())?.role === "none" && location.reload()); // its token was removed
store.on("alarms", showTitle);
store.on("sensors", showTitle);
store.on("asked", (asked) => setText(announcement, outcomeText(asked)));
setInterval(() => view.tick(), 1000);
begin();
navigator.serviceWorker?.register("worker.js").then(keepFiles, () => {}); // not everywhere, such as in a private window

/** Begin; show somebody who may see nothing the form to log in instead. */
async function begin() {
  user = await session();
  if (user?.role === "none") {
    main.replaceChildren(loginForm());
    main.querySelector("input").focus();
    return;
  }
  store.role = user?.role ?? null;
  showConnection();
  store.start();
}

/** Let the worker keep the files of the page, for when usbgate is away. */
async function keepFiles() {
  const { active } = await navigator.serviceWorker.ready;
  const files = performance.getEntriesByType("resource").map(({ name }) => name);
  // Each once: the cache refuses them all if one is named twice, as the icon may be.
  active.postMessage([...new Set([new URL("./", location.href).href, ...files])]);
}
