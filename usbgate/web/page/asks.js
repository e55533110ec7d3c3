// The requests of this page to sensors, with how they end.

import { Problem, ask } from "./api.js";

export class Asks {
  /**
   * `changed(id)` is called when the state of a request changes, `answered(id, answer)` with an answer, `ended` with
   * each request that ended; `now()` is the time of usbgate's clock in ms.
   */
  constructor({ changed, answered, ended, now }) {
    this.callbacks = { changed, answered, ended, now };
    this.sensors = new Map(); // by sensor and button: {state, at, values, problem}
    this.unanswered = new Set(); // sensors whose last request failed, until they report
  }

  /** The requests of a sensor, by button; "" is its default command. */
  of(id) {
    return this.sensors.get(id) ?? new Map();
  }

  /** The failed request of a sensor, if there is one. */
  failed(id) {
    return [...this.of(id).values()].find((asked) => asked.state === "failed");
  }

  /** Ask a sensor, by its default command or one of its buttons. It never fails: `of` has the state. */
  async ask(id, button = null) {
    const key = button?.label ?? "";
    if (!this.sensors.has(id)) this.sensors.set(id, new Map());
    const asks = this.sensors.get(id);
    if (asks.get(key)?.state === "waiting") return;
    // Forget how earlier requests ended.
    for (const [other, asked] of asks) if (asked.state !== "waiting") asks.delete(other);
    asks.set(key, { state: "waiting" });
    this.callbacks.changed(id);
    const body = { origin: "page" };
    if (button !== null) Object.assign(body, { command: button.command, arguments: button.arguments });
    try {
      const answer = await ask(id, body);
      asks.set(key, { state: "done", at: this.callbacks.now(), values: answer.values });
      this.callbacks.answered(id, answer);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      asks.set(key, { state: "failed", problem });
      this.unanswered.add(id);
      this.callbacks.changed(id);
    }
    this.callbacks.ended({ id, button, asked: asks.get(key) });
  }

  /** Ask again where usbgate was unreachable. A command could be carried out twice, so it is not repeated. */
  repeatUnreachable() {
    for (const [id, asks] of this.sensors) if (asks.get("")?.problem?.code === "unreachable") this.ask(id);
  }

  /** Forget failed requests: the sensor has reported. */
  clearFailures(id) {
    this.unanswered.delete(id);
    for (const [key, asked] of this.of(id)) if (asked.state === "failed") this.sensors.get(id).delete(key);
  }
}
