// What the page knows of sensors, devices, alarms and the database, kept up to date by events and by regular calls.

import { Problem, ask, dropAsks, get, post, sensorPath } from "./api.js";
import { Stream } from "./stream.js";

const REFRESH = 30_000; // ms between calls, for what has no event, such as a sensor that is out of date
const HIDDEN_LIMIT = 300_000; // ms after which a hidden tab closes its stream: a browser has few connections
const GRACE = 2_500; // ms after which a stream that ended counts as lost
const BEHIND = 60_000; // ms that the oldest row may wait before a notice is shown
const CONTACT = 45_000; // ms without a response or an event after which nothing is known: REFRESH, and time to answer
const CHECK = 1_000; // ms between two looks at that; after a sleep of the computer, the first one finds it

// A field without settings.
const NOTHING = { kind: null, label: null, values: {}, states: false, unit: null, decimals: null };
const UNKNOWN_FIELD = { ...NOTHING, alarm: null, alarming: false, value: null, text: null };

/** Keep fields in the order that they have on the page. */
function keepOrder(sensor, before) {
  const places = new Map((before?.fields ?? []).map(({ field }, index) => [field, index]));
  sensor.fields.sort((a, b) => (places.get(a.field) ?? Infinity) - (places.get(b.field) ?? Infinity) || 0);
}

class Store {
  constructor() {
    this.sensors = new Map(); // in the order of usbgate
    this.devices = new Map();
    this.alarms = new Map();
    this.uncompared = [];
    this.database = { state: "connected", backlog: 0, behind: false };
    this.version = "";
    this.connection = "connecting"; // open, lost
    this.lostAt = Date.now();
    this.contactAt = Date.now(); // of the last response or event
    this.grace = null; // the timer until it counts as lost
    this.loaded = false;
    this.unanswered = new Set(); // sensors whose last request failed, until they report
    this.asks = new Map(); // by sensor and button: the requests of this page, with their states
    this.listeners = new Map();
    this.clock = { at: Date.now(), since: performance.now() };
    this.eventCount = 0; // counts events, to see whether a response is older than one
    this.refreshing = null;
    this.again = false; // whether to refresh again then
    this.stream = new Stream({
      opened: (resumed) => this.streamOpened(resumed),
      failed: () => this.streamFailed(),
      event: (kind, data) => this.receive(kind, data),
    });
  }

  /**
   * Add a listener: "sensors" (the set changed), "sensor" (with its id), "reading" (with its event), "alarms", "alarm"
   * (with one that changed), "state" (of devices, database or connection), "gap" (events were missed), "asked" (a
   * request ended).
   */
  on(what, listener) {
    if (!this.listeners.has(what)) this.listeners.set(what, new Set());
    this.listeners.get(what).add(listener);
    return () => this.listeners.get(what).delete(listener);
  }

  emit(what, data) {
    for (const listener of [...(this.listeners.get(what) ?? [])]) listener(data);
  }

  /** The time of usbgate's clock in ms; the browser's may be wrong. */
  now() {
    return this.clock.at + performance.now() - this.clock.since;
  }

  /** A field of a sensor, or one without settings if it is not known. */
  field(id, name) {
    const found = this.sensors.get(id)?.fields.find((each) => each.field === name);
    return found ?? { field: name, ...UNKNOWN_FIELD };
  }

  /** Since when nothing is known of a sensor, in ms: usbgate or its device is away; null if both are there. */
  unknownSince(sensor) {
    if (this.connection === "lost") return this.lostAt;
    if (sensor.device === null || sensor.device_state === "online") return null;
    const device = this.devices.get(sensor.device);
    if (device === undefined) return Date.parse(sensor.seen);
    return device.state === "silent" ? this.lastReport(device) : Date.parse(device.since);
  }

  /** When a device reported last, in ms. */
  lastReport({ name, since }) {
    const reports = [...this.sensors.values()].filter(({ device, seen }) => device === name && seen !== null);
    return reports.length ? Math.max(...reports.map(({ seen }) => Date.parse(seen))) : Date.parse(since);
  }

  start() {
    this.stream.open();
    this.refresh();
    setInterval(() => this.refresh(), REFRESH);
    setInterval(() => this.checkContact(), CHECK);
    window.addEventListener("online", () => this.refresh());
    let hidden = null;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(hidden);
      if (document.hidden) hidden = setTimeout(() => this.stream.close(), HIDDEN_LIMIT);
      else if (this.stream.source === null) this.stream.open();
      if (!document.hidden) {
        this.checkContact();
        this.refresh();
      }
    });
  }

  // The connection.

  streamOpened(resumed) {
    clearTimeout(this.grace);
    this.grace = null;
    this.contactAt = Date.now();
    const wasLost = this.connection === "lost";
    // After a loss, what was known before is shown as known only when it has been fetched again.
    if (!wasLost) this.setConnection("open");
    this.refresh(true).then(() => {
      if (this.connection !== "open" || !this.loaded) return;
      if (wasLost || !resumed) this.emit("gap");
      if (wasLost) this.repeatUnreachable();
    });
  }

  setConnection(state) {
    if (this.connection === state) return;
    this.connection = state;
    this.emit("state");
    this.emit("sensors");
  }

  /** The stream ended. Proxies do that now and then, so wait a moment before it counts as lost. */
  streamFailed() {
    if (this.connection === "lost" || this.grace) return;
    this.lostAt = Date.now();
    this.grace = setTimeout(() => this.lost(this.lostAt), GRACE);
    this.setConnection("connecting");
  }

  lost(at) {
    clearTimeout(this.grace);
    this.grace = null;
    if (this.connection !== "lost") this.lostAt = at;
    this.setConnection("lost");
  }

  /** A dead network reports no error, nor does a computer that slept: look at when usbgate answered last. */
  checkContact() {
    if (document.hidden || this.connection === "lost" || Date.now() - this.contactAt < CONTACT) return;
    this.lost(this.contactAt);
    this.stream.open();
  }

  /** Fetch everything. If that is under way, and may have begun too early, `again` fetches it once more afterwards. */
  refresh(again = false) {
    this.again ||= again && this.refreshing !== null;
    this.refreshing ??= this.fetchAll().finally(() => {
      this.refreshing = null;
      if (this.again) {
        this.again = false;
        this.refresh();
      }
    });
    return this.refreshing;
  }

  async fetchAll() {
    try {
      const begun = performance.now();
      this.setSensors(await this.latest(() => get("sensors")), begun);
      this.contactAt = Date.now();
      if (this.stream.isOpen) this.setConnection("open");
      this.setRest(
        await this.latest(async () => {
          const { devices } = await get("devices");
          const { alarms } = await get("alarms");
          return { devices, alarms, status: await get("status") };
        }),
      );
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.code !== "unreachable") return;
      dropAsks();
      // The stream may not have noticed yet.
      if (this.stream.isOpen) this.stream.open();
      this.lost(this.contactAt);
    }
  }

  /** Fetch something, and again if an event arrived meanwhile that may be newer. */
  async latest(fetched) {
    for (;;) {
      const before = this.eventCount;
      const answer = await fetched();
      if (before === this.eventCount) return answer;
    }
  }

  setRest({ devices, alarms, status: { store, uncompared, version } }) {
    this.devices = new Map(devices.map((device) => [device.name, device]));
    this.alarms = new Map(alarms.map((alarm) => [alarm.id, alarm]));
    const behind = store.oldest !== null && this.now() - Date.parse(store.oldest) > BEHIND;
    this.database = { state: store.state, backlog: store.backlog, behind };
    this.uncompared = uncompared;
    this.version = version;
    this.emit("alarms");
    this.emit("state");
  }

  setSensors({ now, sensors }, begun) {
    this.clock = { at: Date.parse(now), since: performance.now() };
    const before = this.sensors;
    this.sensors = new Map();
    for (const sensor of sensors) {
      for (const shown of before.get(sensor.id)?.fields ?? []) {
        const field = sensor.fields.find((each) => each.field === shown.field);
        if (field === undefined) continue;
        // An event that arrived meanwhile is newer. `at` does not tell: clocks are set back.
        if (shown.receivedAt >= begun) {
          const { value, text, at } = shown;
          Object.assign(field, { value, text, at });
          sensor.stale = false;
        } else if (field.at !== shown.at) this.clearFailures(sensor.id);
      }
      keepOrder(sensor, before.get(sensor.id));
      this.sensors.set(sensor.id, sensor);
    }
    for (const [id, sensor] of before) {
      if (!this.sensors.has(id) && sensor.fields.some((field) => field.receivedAt >= begun)) this.sensors.set(id, sensor);
    }
    this.loaded = true;
    this.emit("sensors");
  }

  // Events.

  receive(kind, data) {
    this.contactAt = Date.now();
    if (kind === "reading") {
      // A card shows the device that is asked.
      const shown = this.sensors.get(data.sensor)?.device ?? data.device;
      if (shown === data.device) this.addValues(data.sensor, data.device, data.at, data.values);
      this.emit("reading", data);
      return;
    }
    this.eventCount += 1;
    if (kind === "dropped") {
      this.refresh(true);
      this.emit("gap");
    } else if (kind === "alarm") {
      if (data.ended !== null && data.acknowledged !== null) this.alarms.delete(data.id);
      // The newest come first.
      else if (this.alarms.has(data.id)) this.alarms.set(data.id, data);
      else this.alarms = new Map([[data.id, data], ...this.alarms]);
      const field = this.sensors.get(data.sensor)?.fields.find((each) => each.field === data.field);
      // Each device that reports the sensor has an alarm of its own.
      const here = [...this.alarms.values()].filter((each) => each.sensor === data.sensor && each.field === data.field);
      if (field) field.alarming = here.some((each) => each.ended === null);
      this.emit("alarms");
      this.emit("alarm", data);
      this.emit("sensor", data.sensor);
    } else if (kind === "device") {
      const device = this.devices.get(data.device) ?? { name: data.device, warning: null, lent_to: null };
      this.devices.set(data.device, { ...device, state: data.state, since: data.since });
      for (const sensor of this.sensors.values()) {
        if (sensor.device !== data.device) continue;
        sensor.device_state = data.state;
        this.emit("sensor", sensor.id);
      }
      this.emit("state");
      if (data.state === "lent") this.refresh(true); // to whom
    } else if (kind === "store") {
      // What could not be read from the database can be read again.
      if (data.state === "connected" && this.database.state !== "connected") this.emit("gap");
      this.database = { ...data, behind: false };
      this.emit("state");
    }
  }

  /** Store the values of a report; for a new field, fetch its unit and the rest. */
  addValues(id, device, at, values) {
    let sensor = this.sensors.get(id);
    const isNew = sensor === undefined;
    if (isNew) {
      const known = { device, device_state: this.devices.get(device)?.state ?? "online" };
      sensor = { id, name: null, place: null, ...known, seen: at, stale: false, commands: [], fields: [] };
      this.sensors.set(id, sensor);
    }
    let unknown = isNew;
    for (const [name, value] of Object.entries(values)) {
      let field = sensor.fields.find((each) => each.field === name);
      if (field === undefined) {
        field = { field: name, at: "", ...UNKNOWN_FIELD };
        sensor.fields.push(field);
        unknown = true;
      }
      field.value = typeof value === "number" ? value : null;
      field.text = typeof value === "number" ? null : value;
      field.at = at;
      field.receivedAt = performance.now();
    }
    if (Object.keys(values).length) {
      sensor.seen = at;
      sensor.stale = false;
      this.clearFailures(id);
    }
    if (unknown) this.fetchSensor(id);
    if (isNew) this.emit("sensors");
    else this.emit("sensor", id);
  }

  /** Forget failed requests: the sensor has reported. */
  clearFailures(id) {
    this.unanswered.delete(id);
    for (const [key, asked] of this.asks.get(id) ?? []) if (asked.state === "failed") this.asks.get(id).delete(key);
  }

  async fetchSensor(id) {
    try {
      const sensor = await get(sensorPath(id));
      if (!this.sensors.has(id)) return;
      keepOrder(sensor, this.sensors.get(id));
      this.sensors.set(id, sensor);
      this.emit("sensors");
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem; // the next refresh has it
    }
  }

  // Commands.

  /** Ask a sensor, by its default command or one of its buttons. It never fails: `asks` has the state. */
  async ask(id, button = null) {
    const key = button?.label ?? "";
    if (!this.asks.has(id)) this.asks.set(id, new Map());
    const asks = this.asks.get(id);
    if (asks.get(key)?.state === "waiting") return;
    // Forget how earlier requests ended.
    for (const [other, asked] of asks) if (asked.state !== "waiting") asks.delete(other);
    asks.set(key, { state: "waiting" });
    this.emit("sensor", id);
    const body = { origin: "page" };
    if (button !== null) Object.assign(body, { command: button.command, arguments: button.arguments });
    try {
      const answer = await ask(id, body);
      asks.set(key, { state: "done", at: this.now(), values: answer.values });
      this.addValues(id, answer.device, answer.at, answer.values);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      asks.set(key, { state: "failed", problem });
      this.unanswered.add(id);
      this.emit("sensor", id);
    }
    this.emit("asked", { id, button, asked: asks.get(key) });
  }

  /** Refresh again where usbgate was unreachable. A command could be carried out twice, so it is not repeated. */
  repeatUnreachable() {
    for (const [id, asks] of this.asks) if (asks.get("")?.problem?.code === "unreachable") this.ask(id);
  }

  /** The failed request of a sensor, if there is one. */
  failed(id) {
    return [...(this.asks.get(id)?.values() ?? [])].find((asked) => asked.state === "failed");
  }

  /** Acknowledge an alarm; `by` is a name, or "" for the browser's address. Fails with a Problem. */
  async acknowledge(id, by) {
    const before = this.eventCount;
    const alarm = await post(`alarms/${encodeURIComponent(id)}/acknowledge`, by ? { by } : {});
    // An event that arrived meanwhile is newer.
    if (before === this.eventCount) this.receive("alarm", alarm);
  }
}

export const store = new Store();
