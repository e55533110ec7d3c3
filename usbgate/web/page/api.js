// Calls usbgate. All addresses are relative, so that they hold under whatever path a proxy has given us.

const BASE = "api/v1/";
const LIMIT = 20_000; // ms for everything that no device is asked for

// A browser opens 6 connections to a host, and one is taken by the events: questions leave some for the rest.
const MOST_ASKS = 3;

/** Why a call failed: `code` is usbgate's, or "unreachable" where usbgate did not answer at all. */
export class Problem extends Error {
  constructor(code, detail) {
    super(detail);
    this.code = code;
  }
}

async function call(path, options) {
  let response;
  let body;
  try {
    response = await fetch(BASE + path, { cache: "no-store", ...options });
    body = await response.json();
  } catch (error) {
    // Also what a proxy says in HTML where usbgate is not there.
    throw new Problem("unreachable", response ? `HTTP ${response.status}` : String(error.message));
  }
  if (!response.ok) throw new Problem(body.code ?? "failed", body.detail ?? response.statusText);
  return body;
}

export function get(path, parameters = {}) {
  return call(path + query(parameters), { signal: AbortSignal.timeout(LIMIT) });
}

export function post(path, body, signal = AbortSignal.timeout(LIMIT)) {
  const headers = { "Content-Type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** The address of stored readings as CSV. */
export function csvAddress(parameters) {
  return BASE + "readings.csv" + query(parameters);
}

export const eventsAddress = BASE + "events";

export function sensorPath(id) {
  return `sensors/${encodeURIComponent(id)}`;
}

function query(parameters) {
  const text = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null)).toString();
  return text && `?${text}`;
}

let asking = 0;
const waiting = [];
let hangUp = new AbortController();

/** Ask a sensor; how long that may take is usbgate's to say. */
export async function ask(id, body) {
  if (asking >= MOST_ASKS) await new Promise((go) => waiting.push(go));
  else asking += 1;
  try {
    return await post(`${sensorPath(id)}/ask`, body, hangUp.signal);
  } finally {
    // The place goes on to who waits, or is free again.
    if (waiting.length) waiting.shift()();
    else asking -= 1;
  }
}

/** Nobody is there to answer any more: let all questions fail. */
export function dropAsks() {
  hangUp.abort();
  hangUp = new AbortController();
}
