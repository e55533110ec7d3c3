// The stream of events. It is opened again whenever it ends.

import { eventsAddress } from "./api.js";

const KINDS = ["reading", "device", "store", "alarm", "dropped"];
const FIRST_WAIT = 1_000; // ms until a stream that the browser has given up is opened again
const LONGEST_WAIT = 10_000;
const OPEN_LIMIT = 15_000; // ms for an attempt: a dead network reports no error

export class Stream {
  /**
   * `opened(resumed)` is called when the stream opens; `resumed` is whether the browser has sent `Last-Event-ID`, so
   * that missed events arrive by themselves. `failed()` is called when it ends, `event(kind, data)` for each event.
   */
  constructor({ opened, failed, event }) {
    this.callbacks = { opened, failed, event };
    this.source = null;
    this.timer = null;
    this.wait = FIRST_WAIT;
  }

  get isOpen() {
    return this.source?.readyState === EventSource.OPEN;
  }

  /** Open the stream, or open it again. */
  open() {
    this.close();
    const source = new EventSource(eventsAddress);
    this.source = source;
    let before = false;
    source.onopen = () => {
      clearTimeout(this.timer);
      this.wait = FIRST_WAIT;
      // When the browser reconnects by itself, it sends Last-Event-ID; a new EventSource does not.
      this.callbacks.opened(before);
      before = true;
    };
    source.onerror = () => {
      this.callbacks.failed();
      // CLOSED: the browser has given up, such as after an error page of a proxy. Otherwise, it tries again by itself.
      this.later(source.readyState === EventSource.CLOSED ? this.wait : OPEN_LIMIT);
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => this.callbacks.event(kind, JSON.parse(event.data)));
    }
    this.later(OPEN_LIMIT);
  }

  /** Close the stream. */
  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  later(wait) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), wait);
    this.wait = Math.min(this.wait * 1.7, LONGEST_WAIT);
  }
}
