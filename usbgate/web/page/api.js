// Calls of the API. All addresses are relative, so that they work under any path of a proxy.

const BASE = "api/v1/";
const LIMIT = 20_000; // ms for a call that asks no device

// A browser opens 6 connections to a host. Events take one; requests to devices leave some for other calls.
const MAX_ASKS = 3;

/**
 * Why a call failed: `code` is one of usbgate's, or "unreachable" without a response of usbgate; `reason` is a phrase
 * that says more, or undefined; `role` is the role that would be required.
 */
export class Problem extends Error {
  constructor(code, detail, { reason, role } = {}) {
    super(detail);
    Object.assign(this, { code, reason, role });
  }
}

async function call(path, options) {
  let response;
  let body;
  try {
    response = await fetch(BASE + path, { cache: "no-store", ...options });
    body = await response.json();
  } catch (error) {
    // Includes the HTML error page of a proxy.
    throw new Problem("unreachable", response ? `HTTP ${response.status}` : String(error.message));
  }
  if (!response.ok) throw new Problem(body.code ?? "failed", body.detail ?? response.statusText, body);
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

/** Ask a sensor; usbgate has the time limit. */
export async function ask(id, body) {
  if (asking >= MAX_ASKS) await new Promise((go) => waiting.push(go));
  else asking += 1;
  try {
    return await post(`${sensorPath(id)}/ask`, body, hangUp.signal);
  } finally {
    // Pass the turn on, or free it.
    if (waiting.length) waiting.shift()();
    else asking -= 1;
  }
}

/** Let all requests to devices fail: usbgate is unreachable. */
export function dropAsks() {
  hangUp.abort();
  hangUp = new AbortController();
}
