// What the page knows: sensors, devices, alarms, the database; kept up to date by events, and by a look now and then.

import { Problem, ask, dropAsks, get, post, sensorPath } from "./api.js";
import { Stream } from "./stream.js";

const LOOK = 30_000; // ms between looks: what no event tells, such as what has become old
const HIDDEN_LIMIT = 300_000; // ms; a tab that nobody looks at leaves the browser's few connections to others
const GRACE = 2_500; // ms
const BEHIND = 60_000; // ms that the oldest row waits before a person is told

/** Fields stand where they stood. */
function keepOrder(sensor, before) {
  const places = new Map((before?.fields ?? []).map(({ field }, index) => [field, index]));
  sensor.fields.sort((a, b) => (places.get(a.field) ?? Infinity) - (places.get(b.field) ?? Infinity) || 0);
}

class Store {
  constructor() {
    this.sensors = new Map(); // in the order of usbgate, which is that of the configuration; stays as it is
    this.devices = new Map();
    this.alarms = new Map();
    this.database = { state: "connected", backlog: 0, behind: false };
    this.version = "";
    this.connection = "connecting"; // open, lost
    this.lostAt = Date.now();
    this.grace = null; // the timer until that is said
    this.loaded = false;
    this.asks = new Map(); // by sensor: what was asked by this page, by command, and what has become of it
    this.listeners = new Map();
    this.clock = { at: Date.now(), since: performance.now() };
    this.touched = 0; // counts events, to see whether an answer is older than one
    this.looking = null;
    this.anew = false; // whether to look again then
    this.stream = new Stream({
      opened: (whole) => this.opened(whole),
      lost: () => this.faltered(),
      happened: (kind, data) => this.happened(kind, data),
    });
  }

  /** Hear of something: "sensors" (which there are), "sensor" (its id), "reading", "alarms", "state", "gap". */
  on(what, listener) {
    if (!this.listeners.has(what)) this.listeners.set(what, new Set());
    this.listeners.get(what).add(listener);
    return () => this.listeners.get(what).delete(listener);
  }

  tell(what, data) {
    for (const listener of [...(this.listeners.get(what) ?? [])]) listener(data);
  }

  /** The time of usbgate's clock, ms: the browser's may be wrong. */
  now() {
    return this.clock.at + performance.now() - this.clock.since;
  }

  start() {
    this.stream.open();
    this.look();
    setInterval(() => this.look(), LOOK);
    window.addEventListener("online", () => this.look());
    let hidden = null;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(hidden);
      if (document.hidden) hidden = setTimeout(() => this.stream.close(), HIDDEN_LIMIT);
      else if (this.stream.source === null) this.stream.open();
      if (!document.hidden) this.look();
    });
  }

  // The connection.

  opened(whole) {
    clearTimeout(this.grace);
    this.grace = null;
    this.connection = "open";
    this.tell("state");
    this.look(true);
    if (!whole && this.loaded) this.tell("gap");
  }

  /** The events ended; proxies do that now and then, and all is well again a moment later. */
  faltered() {
    if (this.connection === "lost" || this.grace) return;
    this.connection = "connecting";
    this.lostAt = Date.now();
    this.grace = setTimeout(() => this.lost(), GRACE);
    this.tell("state");
  }

  lost() {
    clearTimeout(this.grace);
    this.grace = null;
    if (this.connection === "open") this.lostAt = Date.now();
    this.connection = "lost";
    this.tell("state");
  }

  /** Fetch how all is, once at a time; `anew` also where that is under way, and may have begun before events came. */
  look(anew = false) {
    this.anew ||= anew && this.looking !== null;
    this.looking ??= this.fetchAll().finally(() => {
      this.looking = null;
      if (this.anew) {
        this.anew = false;
        this.look();
      }
    });
    return this.looking;
  }

  async fetchAll() {
    try {
      const begun = performance.now();
      this.takeSensors(await this.latest(() => get("sensors")), begun);
      this.takeRest(
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
      // The stream may not know yet, where a network just ends.
      if (this.stream.isOpen) this.stream.open();
      this.lost();
    }
  }

  /** Fetch something, and again where an event came meanwhile, which may know more than the answer. */
  async latest(fetched) {
    for (;;) {
      const before = this.touched;
      const answer = await fetched();
      if (before === this.touched) return answer;
    }
  }

  takeRest({ devices, alarms, status: { store, version } }) {
    this.devices = new Map(devices.map((device) => [device.name, device]));
    this.alarms = new Map(alarms.map((alarm) => [alarm.id, alarm]));
    const behind = store.oldest !== null && this.now() - Date.parse(store.oldest) > BEHIND;
    this.database = { state: store.state, backlog: store.backlog, behind };
    this.version = version;
    this.tell("alarms");
    this.tell("state");
  }

  takeSensors({ now, sensors }, begun) {
    this.clock = { at: Date.parse(now), since: performance.now() };
    const before = this.sensors;
    this.sensors = new Map();
    for (const sensor of sensors) {
      for (const heard of before.get(sensor.id)?.fields ?? []) {
        const field = sensor.fields.find((each) => each.field === heard.field);
        if (field === undefined) continue;
        // An event that came meanwhile knows more. Which is the newer one is not told by `at`: clocks are set back.
        if (heard.heard >= begun) {
          const { value, text, at } = heard;
          Object.assign(field, { value, text, at });
          sensor.stale = false;
        } else if (field.at !== heard.at) this.spoke(sensor.id);
      }
      keepOrder(sensor, before.get(sensor.id));
      this.sensors.set(sensor.id, sensor);
    }
    for (const [id, sensor] of before) {
      if (!this.sensors.has(id) && sensor.fields.some((field) => field.heard >= begun)) this.sensors.set(id, sensor);
    }
    this.loaded = true;
    this.tell("sensors");
  }

  // Events.

  happened(kind, data) {
    if (kind === "reading") {
      this.heard(data.sensor, data.device, data.at, data.values);
      this.tell("reading", data);
      return;
    }
    this.touched += 1;
    if (kind === "dropped") {
      this.look(true);
      this.tell("gap");
    } else if (kind === "alarm") {
      if (data.ended !== null && data.acknowledged !== null) this.alarms.delete(data.id);
      // The newest stand first.
      else if (this.alarms.has(data.id)) this.alarms.set(data.id, data);
      else this.alarms = new Map([[data.id, data], ...this.alarms]);
      const field = this.sensors.get(data.sensor)?.fields.find((each) => each.field === data.field);
      if (field) field.alarming = data.ended === null;
      this.tell("alarms");
      this.tell("sensor", data.sensor);
    } else if (kind === "device") {
      const device = this.devices.get(data.device) ?? { name: data.device, warning: null };
      this.devices.set(data.device, { ...device, state: data.state, since: data.since });
      for (const sensor of this.sensors.values()) {
        if (sensor.device !== data.device) continue;
        sensor.device_state = data.state;
        this.tell("sensor", sensor.id);
      }
      this.tell("state");
    } else if (kind === "store") {
      this.database = { ...data, behind: false };
      this.tell("state");
    }
  }

  /** Take note of values; what they look like, of a field that is new to us, usbgate has to tell. */
  heard(id, device, at, values) {
    let sensor = this.sensors.get(id);
    const isNew = sensor === undefined;
    if (isNew) {
      sensor = { id, name: null, place: null, device, device_state: null, stale: false, commands: [], fields: [] };
      this.sensors.set(id, sensor);
    }
    let unknown = isNew;
    for (const [name, value] of Object.entries(values)) {
      let field = sensor.fields.find((each) => each.field === name);
      if (field === undefined) {
        field = { field: name, at: "", unit: null, decimals: null, alarm: null, alarming: false };
        sensor.fields.push(field);
        unknown = true;
      }
      field.value = typeof value === "number" ? value : null;
      field.text = typeof value === "number" ? null : value;
      field.at = at;
      field.heard = performance.now();
    }
    if (Object.keys(values).length) {
      sensor.seen = at;
      sensor.stale = false;
      this.spoke(id);
    }
    if (unknown) this.fetchSensor(id);
    if (isNew) this.tell("sensors");
    else this.tell("sensor", id);
  }

  /** It speaks: that it did not answer is over. */
  spoke(id) {
    for (const [key, asked] of this.asks.get(id) ?? []) if (asked.state === "failed") this.asks.get(id).delete(key);
  }

  async fetchSensor(id) {
    try {
      const sensor = await get(sensorPath(id));
      if (!this.sensors.has(id)) return;
      keepOrder(sensor, this.sensors.get(id));
      this.sensors.set(id, sensor);
      this.tell("sensors");
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem; // the next look tells
    }
  }

  // What a person does.

  /** Ask a sensor, by its default command or one of its buttons; never fails: what becomes of it is in `asks`. */
  async ask(id, button = null) {
    const key = button?.label ?? "";
    if (!this.asks.has(id)) this.asks.set(id, new Map());
    const asks = this.asks.get(id);
    if (asks.get(key)?.state === "waiting") return;
    // What failed before is no news any more.
    for (const [other, asked] of asks) if (asked.state !== "waiting") asks.delete(other);
    asks.set(key, { state: "waiting" });
    this.tell("sensor", id);
    const body = { origin: "page" };
    if (button !== null) Object.assign(body, { command: button.command, arguments: button.arguments });
    try {
      const answer = await ask(id, body);
      asks.set(key, { state: "done", at: this.now(), values: answer.values });
      this.heard(id, answer.device, answer.at, answer.values);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      asks.set(key, { state: "failed", problem });
      this.tell("sensor", id);
    }
    this.tell("asked", { id, button, asked: asks.get(key) });
  }

  /** What failed last at a sensor. */
  failed(id) {
    return [...(this.asks.get(id)?.values() ?? [])].find((asked) => asked.state === "failed");
  }

  /** Acknowledge an alarm. Fails with a Problem. */
  async acknowledge(id) {
    const alarm = await post(`alarms/${encodeURIComponent(id)}/acknowledge`, {});
    this.happened("alarm", alarm);
  }
}

export const store = new Store();
