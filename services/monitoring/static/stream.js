// The stream of server-sent events: opened, watched, and opened again for as long as the page is open.

const SILENCE_MS = 12000; // the service sends something every few seconds
const AGAIN_MS = 1500;

export class Stream {
  constructor(store, onState) {
    this.store = store;
    this.onState = onState;
    this.lastId = "";
    this.source = null;
    this.heard = Date.now();
    this.timer = 0;
    setInterval(() => this.#watch(), 1000);
  }

  open(selected) {
    this.selected = selected;
    this.source?.close();
    clearTimeout(this.timer);
    const query = new URLSearchParams({ migration: selected, after: this.lastId });
    const source = new EventSource(`/events?${query}`);
    this.source = source;
    this.heard = Date.now();
    source.onmessage = (message) => {
      this.heard = Date.now();
      this.lastId = message.lastEventId;
      this.onState(true);
      this.store.take(JSON.parse(message.data));
    };
    source.onerror = () => {
      this.onState(false);
      if (source.readyState === EventSource.CLOSED) this.#again();
    };
  }

  #again() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(this.selected), AGAIN_MS);
  }

  #watch() {
    if (Date.now() - this.heard < SILENCE_MS) return;
    this.onState(false);
    this.heard = Date.now();
    this.open(this.selected);
  }
}
