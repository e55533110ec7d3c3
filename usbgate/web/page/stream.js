// The events of usbgate, for as long as the page is open: opened again whenever they end.

import { eventsAddress } from "./api.js";

const KINDS = ["reading", "device", "store", "alarm", "dropped"];
const FIRST_WAIT = 1_000; // ms until a stream that the browser has given up is opened anew
const LONGEST_WAIT = 10_000;
const OPEN_LIMIT = 15_000; // ms for an attempt: a dead network says nothing at all

export class Stream {
  /**
   * Begin with none.
   *
   * `opened(whole)` is called when events come (again): `whole` says that the browser told usbgate where it had been,
   * so that what was missed comes by itself. `lost()` when they don't, `happened(kind, data)` for each.
   */
  constructor({ opened, lost, happened }) {
    this.told = { opened, lost, happened };
    this.source = null;
    this.timer = null;
    this.wait = FIRST_WAIT;
  }

  get isOpen() {
    return this.source?.readyState === EventSource.OPEN;
  }

  /** Open it, anew if need be. */
  open() {
    this.close();
    const source = new EventSource(eventsAddress);
    this.source = source;
    let before = false;
    source.onopen = () => {
      clearTimeout(this.timer);
      this.wait = FIRST_WAIT;
      // The browser itself comes back with Last-Event-ID; a new EventSource can't say it.
      this.told.opened(before);
      before = true;
    };
    source.onerror = () => {
      this.told.lost();
      // Given up: a proxy has answered in place of usbgate, for one. Else the browser tries again by itself.
      this.later(source.readyState === EventSource.CLOSED ? this.wait : OPEN_LIMIT);
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => this.told.happened(kind, JSON.parse(event.data)));
    }
    this.later(OPEN_LIMIT);
  }

  /** Have no events. */
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
