// Listeners by what they wait for.

export class Listeners {
  constructor() {
    this.listeners = new Map();
  }

  /** Add a listener; the function that is returned removes it. */
  on(what, listener) {
    if (!this.listeners.has(what)) this.listeners.set(what, new Set());
    this.listeners.get(what).add(listener);
    return () => this.listeners.get(what).delete(listener);
  }

  emit(what, data) {
    for (const listener of [...(this.listeners.get(what) ?? [])]) listener(data);
  }
}
