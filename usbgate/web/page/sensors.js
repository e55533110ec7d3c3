// The sensors with their newest readings, from responses and events.

// A field without settings.
const NOTHING = { kind: null, label: null, values: {}, states: false, unit: null, decimals: null };
const UNKNOWN_FIELD = { ...NOTHING, alarm: null, alarming: false, value: null, text: null };

/** Keep fields in the order that they have on the page. */
function keepOrder(sensor, before) {
  const places = new Map((before?.fields ?? []).map(({ field }, index) => [field, index]));
  sensor.fields.sort((a, b) => (places.get(a.field) ?? Infinity) - (places.get(b.field) ?? Infinity) || 0);
}

export class Sensors {
  constructor() {
    this.all = new Map(); // by id
  }

  /** A field of a sensor, or one without settings if it is not known. */
  field(id, name) {
    const found = this.all.get(id)?.fields.find((each) => each.field === name);
    return found ?? { field: name, ...UNKNOWN_FIELD };
  }

  /**
   * Replace all by those of a response that was begun at a time of `performance.now()`. Returns the ids of those with
   * readings that no event had.
   */
  replace(sensors, begun) {
    const before = this.all;
    const renewed = [];
    this.all = new Map();
    for (const sensor of sensors) {
      for (const shown of before.get(sensor.id)?.fields ?? []) {
        const field = sensor.fields.find((each) => each.field === shown.field);
        if (field === undefined) continue;
        // An event that arrived meanwhile is newer. `at` does not tell: clocks are set back.
        if (shown.receivedAt >= begun) {
          const { value, text, at } = shown;
          Object.assign(field, { value, text, at });
          sensor.stale = false;
        } else if (field.at !== shown.at) renewed.push(sensor.id);
      }
      keepOrder(sensor, before.get(sensor.id));
      this.all.set(sensor.id, sensor);
    }
    for (const [id, sensor] of before) {
      if (!this.all.has(id) && sensor.fields.some((field) => field.receivedAt >= begun)) this.all.set(id, sensor);
    }
    return renewed;
  }

  /** Replace one sensor, unless it is gone. */
  put(sensor) {
    if (!this.all.has(sensor.id)) return;
    keepOrder(sensor, this.all.get(sensor.id));
    this.all.set(sensor.id, sensor);
  }

  /** Add the values of a report. Returns whether the sensor is new, and whether a field is. */
  add(id, { device, deviceState, at, values }) {
    let sensor = this.all.get(id);
    const isNew = sensor === undefined;
    if (isNew) {
      const known = { device, device_state: deviceState, seen: at, stale: false };
      sensor = { id, name: null, place: null, ...known, commands: [], fields: [] };
      this.all.set(id, sensor);
    }
    // A sensor that is configured and has not reported yet.
    if (sensor.device === null) Object.assign(sensor, { device, device_state: deviceState });
    let hasNewField = isNew;
    for (const [name, value] of Object.entries(values)) {
      let field = sensor.fields.find((each) => each.field === name);
      if (field === undefined) {
        field = { field: name, at: "", ...UNKNOWN_FIELD };
        sensor.fields.push(field);
        hasNewField = true;
      }
      field.value = typeof value === "number" ? value : null;
      field.text = typeof value === "number" ? null : value;
      field.at = at;
      field.receivedAt = performance.now();
    }
    if (Object.keys(values).length) Object.assign(sensor, { seen: at, stale: false });
    return { isNew, hasNewField };
  }
}
