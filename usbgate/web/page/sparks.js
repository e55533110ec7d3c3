// Sparklines: the last day of a field, or the last hour if there are no older readings; the mean as a line, and a band
// from minimum to maximum.

import { Problem, get } from "./api.js";
import { addReading, bySeries, middle, withoutGaps } from "./buckets.js";
import { svg } from "./dom.js";
import { store } from "./store.js";

// The span and its intervals, in ms.
const DAY = { span: 86_400_000, width: 900_000 };
const HOUR = { span: 3_600_000, width: 30_000 };
const FRESH = 1_800_000; // ms after which readings are fetched again
const MAX_FETCHES = 2; // sensors that are fetched at a time
const [W, H] = [120, 32]; // the size of a drawing

const known = new Map(); // by sensor: {at, fields, span, width}
const wanted = [];
let fetching = 0;

/** Fetch the last day of a sensor unless it is known; `drawn` is called when it is. */
export function want(id, drawn) {
  const found = known.get(id);
  if (found && performance.now() - found.at < FRESH) return drawn();
  if (wanted.some((each) => each.id === id)) return undefined;
  wanted.push({ id, drawn });
  return work();
}

/** Forget all: events were missed. */
export function forget() {
  known.clear();
}

function work() {
  while (fetching < MAX_FETCHES && wanted.length) {
    const { id, drawn } = wanted.shift();
    fetching += 1;
    load(id)
      .then(drawn)
      .finally(() => {
        fetching -= 1;
        work();
      });
  }
}

async function load(id) {
  let look = DAY;
  let fields = new Map();
  let at = performance.now();
  try {
    fields = await fetched(id, look);
    const first = Math.min(...[...fields.values()].map((buckets) => buckets[0].at));
    if (fields.size && first > store.now() - HOUR.span) {
      look = HOUR;
      fields = await fetched(id, look);
    }
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    at = -Infinity; // there is no line yet: fetch again
  }
  known.set(id, { ...look, at, fields });
}

async function fetched(id, { span, width }) {
  const query = { sensor: id, since: `${span / 1000}s`, bucket: `${width / 1000}s` };
  const series = bySeries((await get("readings", query)).buckets);
  // A card shows the device that is asked.
  const device = store.sensors.get(id)?.device;
  return new Map([...series].flatMap(([field, of]) => (of.has(device) ? [[field, of.get(device)]] : [])));
}

store.on("reading", ({ sensor, device, at, values }) => {
  const found = known.get(sensor);
  if (found === undefined || device !== store.sensors.get(sensor)?.device) return;
  const { fields, span, width } = found;
  for (const [field, value] of Object.entries(values)) {
    if (typeof value !== "number") continue;
    if (!fields.has(field)) fields.set(field, []);
    addReading(fields.get(field), width, Date.parse(at), value, store.now() - span);
  }
});

/** Make an empty drawing for `draw`. */
export function sparkline() {
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "band" }),
    svg("path", { class: "line" }),
  );
}

/** Draw what is known of a field; of one that is a state, the intervals in which it was not off. */
export function draw(drawing, id, { field, states }) {
  const [band, line] = drawing.children;
  const now = store.now();
  const { fields, span, width } = known.get(id) ?? { fields: new Map(), ...DAY };
  const buckets = (fields.get(field) ?? []).filter((each) => each.at + width > now - span);
  const least = Math.min(...buckets.map((each) => each.min));
  const most = Math.max(...buckets.map((each) => each.max));
  const x = (each) => (W * (1 - (now - middle(each, width, now - span, now)) / span)).toFixed(1);
  const y = (value) => (most === least ? H / 2 : H - 2 - ((value - least) / (most - least)) * (H - 4)).toFixed(1);
  const path = (part, of) => part.map((each) => `${x(each)} ${y(each[of])}`).join("L");
  if (states) {
    const left = (at) => Math.max(0, W * (1 - (now - at) / span));
    const bar = ({ at, max }) => {
      const [from, to] = [left(at), Math.min(W, left(at + width))];
      const [top, bottom] = max === 0 ? [H - 5, H - 3] : [4, H - 3];
      return `M${from.toFixed(1)} ${bottom}V${top}H${to.toFixed(1)}V${bottom}Z`;
    };
    line.setAttribute("d", "");
    band.setAttribute("d", buckets.map(bar).join(""));
    return;
  }
  const parts = buckets.length > 1 ? withoutGaps(buckets) : []; // a line needs two intervals
  // An interval between two gaps is a dot.
  const dot = (part) => (part.length === 1 ? "h.01" : "");
  line.setAttribute("d", parts.map((part) => `M${path(part, "avg")}${dot(part)}`).join(""));
  const bands = most > least ? parts.map((part) => `M${path(part, "max")}L${path(part.toReversed(), "min")}Z`) : [];
  band.setAttribute("d", bands.join(""));
}
