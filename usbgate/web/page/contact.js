// Whether usbgate is there: by its stream of events, and by when it answered last.

import { kept, remember } from "./memory.js";
import { Stream } from "./stream.js";

const HIDDEN_LIMIT = 300_000; // ms after which a hidden tab closes its stream: a browser has few connections
const GRACE = 2_500; // ms after which a stream that ended counts as lost
const LIMIT = 45_000; // ms without a response or an event after which nothing is known: a refresh, and time to answer
const CHECK = 1_000; // ms between two looks at that; after a sleep of the computer, the first one finds it

export class Contact {
  /**
   * `changed()` is called when the state changes, `opened(resumed, wasLost)` when the stream opens, `shown()` when a
   * hidden page is shown again, and `event(kind, data)` for each event.
   */
  constructor({ changed, opened, shown, event }) {
    this.callbacks = { changed, opened, shown };
    this.state = "connecting"; // open, lost
    this.reached = false; // whether it was open
    this.at = Date.now(); // of the last response or event
    this.lostAt = Number(kept("contact")) || this.at; // a page that is opened while usbgate is away knows since when
    this.grace = null; // the timer until it counts as lost
    this.stream = new Stream({
      opened: (resumed) => this.streamOpened(resumed),
      failed: () => this.streamFailed(),
      event: (kind, data) => {
        this.at = Date.now();
        event(kind, data);
      },
    });
  }

  start() {
    this.stream.open();
    setInterval(() => this.check(), CHECK);
    let hidden = null;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(hidden);
      if (document.hidden) hidden = setTimeout(() => this.stream.close(), HIDDEN_LIMIT);
      else if (this.stream.source === null) this.stream.open();
      if (!document.hidden) {
        this.check();
        this.callbacks.shown();
      }
    });
  }

  /** usbgate answered a call. */
  answered() {
    this.at = Date.now();
    remember("contact", this.at);
    if (this.stream.isOpen) this.set("open");
  }

  /** A call did not reach usbgate. */
  unreachable() {
    // The stream may not have noticed yet.
    if (this.stream.isOpen) this.stream.open();
    this.lost(this.at);
  }

  streamOpened(resumed) {
    clearTimeout(this.grace);
    this.grace = null;
    this.at = Date.now();
    const wasLost = this.state === "lost";
    // After a loss, what was known before is shown as known only when it has been fetched again.
    if (!wasLost) this.set("open");
    this.callbacks.opened(resumed, wasLost);
  }

  /** The stream ended. Proxies do that now and then, so wait a moment before it counts as lost. */
  streamFailed() {
    if (this.state === "lost" || this.grace) return;
    const at = Date.now();
    this.grace = setTimeout(() => this.lost(at), GRACE);
    this.set("connecting");
  }

  lost(at) {
    clearTimeout(this.grace);
    this.grace = null;
    // A page that never reached usbgate keeps the time of an earlier page.
    if (this.state !== "lost" && this.reached) this.lostAt = at;
    this.set("lost");
  }

  set(state) {
    if (this.state === state) return;
    this.state = state;
    this.reached ||= state === "open";
    this.callbacks.changed();
  }

  /** A dead network reports no error, nor does a computer that slept: look at when usbgate answered last. */
  check() {
    if (document.hidden || this.state === "lost" || Date.now() - this.at < LIMIT) return;
    this.lost(this.at);
    this.stream.open();
  }
}
