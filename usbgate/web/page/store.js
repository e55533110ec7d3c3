// What the page knows of sensors, devices, alarms and the database, kept up to date by events and by regular calls.

import { Problem, dropAsks, get, post, sensorPath } from "./api.js";
import { Asks } from "./asks.js";
import { Contact } from "./contact.js";
import { Listeners } from "./listeners.js";
import { Sensors } from "./sensors.js";

const REFRESH = 30_000; // ms between calls, for what has no event, such as a sensor that is out of date
const TRIES = 3; // of a call whose response may be older than an event: an alarm that comes and goes sends many
const BEHIND = 60_000; // ms that the oldest row may wait before a notice is shown

/**
 * Its listeners: "sensors" (the set changed), "sensor" (with its id), "reading" (with its event), "alarms", "alarm"
 * (with one that changed), "state" (of devices, database or connection), "gap" (events were missed), "asked" (a request
 * ended), "denied" (nothing may be seen).
 */
class Store extends Listeners {
  constructor() {
    super();
    this.known = new Sensors();
    this.devices = new Map();
    this.alarms = new Map();
    this.uncompared = [];
    this.offers = [];
    this.role = null; // of who uses the page
    this.database = { state: "connected", backlog: 0, behind: false };
    this.broker = null; // of MQTT, if one is configured
    this.version = "";
    this.loaded = false;
    this.clock = { at: Date.now(), since: performance.now() };
    this.reported = { at: 0, received: 0 }; // the last report
    this.eventCount = 0; // counts events, to see whether a response is older than one
    this.refreshing = null;
    this.again = false; // whether to refresh again then
    this.contact = new Contact({
      changed: () => {
        this.emit("state");
        this.emit("sensors");
      },
      opened: (resumed, wasLost) => this.opened(resumed, wasLost),
      shown: () => this.refresh(),
      event: (kind, data) => this.receive(kind, data),
    });
    this.asks = new Asks({
      changed: (id) => this.emit("sensor", id),
      answered: (id, { device, at, values }) => this.addValues(id, device, at, values),
      ended: (asked) => this.emit("asked", asked),
      now: () => this.now(),
    });
  }

  /** The sensors by id. */
  get sensors() {
    return this.known.all;
  }

  /** The connection to usbgate: "connecting", "open" or "lost". */
  get connection() {
    return this.contact.state;
  }

  /** When the connection was lost, in ms. */
  get lostAt() {
    return this.contact.lostAt;
  }

  /** The time of usbgate's clock in ms; the browser's may be wrong. */
  now() {
    return this.clock.at + performance.now() - this.clock.since;
  }

  /** A field of a sensor, or one without settings if it is not known. */
  field(id, name) {
    return this.known.field(id, name);
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
    this.contact.start();
    this.refresh();
    setInterval(() => this.refresh(), REFRESH);
    window.addEventListener("online", () => this.refresh());
  }

  opened(resumed, wasLost) {
    this.refresh(true).then(() => {
      if (this.connection !== "open" || !this.loaded) return;
      if (wasLost || !resumed) this.emit("gap");
      if (wasLost) this.asks.repeatUnreachable();
    });
  }

  // Calls.

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
      this.contact.answered();
      this.setRest(
        await this.latest(async () => {
          const { devices } = await get("devices");
          const { alarms } = await get("alarms");
          const { offers } = await get("replacements");
          return { devices, alarms, offers, status: await get("status") };
        }),
      );
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.code === "denied") this.emit("denied");
      if (problem.code !== "unreachable") return;
      dropAsks();
      this.contact.unreachable();
    }
  }

  /** Fetch something, and again, a few times, if an event arrived meanwhile that may be newer. */
  async latest(fetched) {
    for (let tries = 1; ; tries += 1) {
      const before = this.eventCount;
      const answer = await fetched();
      if (before === this.eventCount || tries === TRIES) return answer;
    }
  }

  setSensors({ now, sensors }, begun) {
    this.clock = { at: Date.parse(now), since: performance.now() };
    if (this.reported.received >= begun) this.keepUp();
    for (const id of this.known.replace(sensors, begun)) this.asks.clearFailures(id);
    this.loaded = true;
    this.emit("sensors");
  }

  setRest({ devices, alarms, offers, status: { store, mqtt, uncompared, version } }) {
    this.devices = new Map(devices.map((device) => [device.name, device]));
    this.alarms = new Map(alarms.map((alarm) => [alarm.id, alarm]));
    const behind = store.oldest !== null && this.now() - Date.parse(store.oldest) > BEHIND;
    this.database = { state: store.state, backlog: store.backlog, behind };
    this.broker = mqtt;
    this.uncompared = uncompared;
    this.offers = offers;
    this.version = version;
    this.emit("alarms");
    this.emit("state");
  }

  async fetchSensor(id) {
    try {
      this.known.put(await get(sensorPath(id)));
      this.emit("sensors");
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem; // the next refresh has it
    }
  }

  /** Acknowledge an alarm; `by` is a name, or "" for the browser's address. Fails with a Problem. */
  async acknowledge(id, by) {
    const before = this.eventCount;
    const alarm = await post(`alarms/${encodeURIComponent(id)}/acknowledge`, by ? { by } : {});
    // An event that arrived meanwhile is newer.
    if (before === this.eventCount) this.receive("alarm", alarm);
  }

  /** Say that a sensor has a new id. Fails with a Problem. */
  async replace(id, successor) {
    await post(`${sensorPath(id)}/replace`, { successor });
    this.offers = this.offers.filter((offer) => offer.sensor !== id && offer.successor !== successor);
    this.emit("state");
    await this.refresh(true);
    this.emit("gap"); // the history of the sensor is another one
  }

  // Events.

  receive(kind, data) {
    if (kind === "reading") {
      // A card shows the device that is asked.
      const shown = this.sensors.get(data.sensor)?.device ?? data.device;
      if (shown === data.device) this.addValues(data.sensor, data.device, data.at, data.values);
      this.emit("reading", data);
      return;
    }
    this.eventCount += 1;
    if (kind === "alarm") this.setAlarm(data);
    else if (kind === "device") this.setDevice(data);
    else if (kind === "dropped") {
      this.refresh(true);
      this.emit("gap");
    } else if (kind === "store") {
      // What could not be read from the database can be read again.
      if (data.state === "connected" && this.database.state !== "connected") this.emit("gap");
      this.database = { ...data, behind: false };
      this.emit("state");
    }
  }

  setAlarm(alarm) {
    if (alarm.ended !== null && alarm.acknowledged !== null) this.alarms.delete(alarm.id);
    // The newest come first.
    else if (this.alarms.has(alarm.id)) this.alarms.set(alarm.id, alarm);
    else this.alarms = new Map([[alarm.id, alarm], ...this.alarms]);
    const field = this.sensors.get(alarm.sensor)?.fields.find((each) => each.field === alarm.field);
    // Each device that reports the sensor has an alarm of its own.
    const here = [...this.alarms.values()].filter(({ sensor, field }) => sensor === alarm.sensor && field === alarm.field);
    if (field) field.alarming = here.some((each) => each.ended === null);
    this.emit("alarms");
    this.emit("alarm", alarm);
    this.emit("sensor", alarm.sensor);
  }

  setDevice({ device: name, state, since }) {
    const device = this.devices.get(name) ?? { name, warnings: [], lent_to: null };
    this.devices.set(name, { ...device, state, since });
    for (const sensor of this.sensors.values()) {
      if (sensor.device !== name) continue;
      sensor.device_state = state;
      this.emit("sensor", sensor.id);
    }
    this.emit("state");
    if (state === "lent") this.refresh(true); // to whom
  }

  /** A response that came late leaves the clock behind: no report is of the future, or a chart would not show it. */
  keepUp() {
    this.clock.at += Math.max(0, this.reported.at - this.now());
  }

  /** Store the values of a report; for a new field, fetch its unit and the rest. */
  addValues(id, device, at, values) {
    this.reported = { at: Date.parse(at), received: performance.now() };
    this.keepUp();
    const deviceState = this.devices.get(device)?.state ?? "online";
    const { isNew, hasNewField } = this.known.add(id, { device, deviceState, at, values });
    if (Object.keys(values).length) this.asks.clearFailures(id);
    if (hasNewField) this.fetchSensor(id);
    if (isNew) this.emit("sensors");
    else this.emit("sensor", id);
  }
}

export const store = new Store();
