// What the service has told, as the page holds it. Knows no elements.

export const EVENTS_KEPT = 200;

export class Store extends EventTarget {
  constructor() {
    super();
    this.rows = new Map();
    this.events = [];
    this.around = null;
    this.detail = null;
    this.selected = "";
    this.isTold = false;
    this.clockAhead = 0; // how far the service's clock is ahead of ours, in seconds
  }

  take(frame) {
    this.clockAhead = frame.now - Date.now() / 1000;
    if (frame.whole) {
      this.rows.clear();
      this.events = [];
    }
    for (const name of frame.gone) this.rows.delete(name);
    for (const row of frame.rows) this.rows.set(row.name, row);
    if (frame.events.length) this.#takeEvents(frame.events);
    if (frame.around) this.around = frame.around;
    if (frame.detail) this.detail = frame.detail;
    if (this.detail && !this.rows.has(this.detail.name)) this.detail = null;
    this.isTold = true;
    this.dispatchEvent(new Event("change"));
  }

  #takeEvents(told) {
    const byKey = new Map(this.events.map((event) => [keyOf(event), event]));
    for (const event of told) byKey.set(keyOf(event), event);
    const sorted = [...byKey.values()].sort((a, b) => (a.at < b.at ? 1 : a.at > b.at ? -1 : b.index - a.index));
    this.events = sorted.slice(0, EVENTS_KEPT);
  }

  // The time, by the service's clock.
  now() {
    return Date.now() / 1000 + this.clockAhead;
  }

  age(heard) {
    return heard ? Math.max(0, this.now() - heard) : null;
  }
}

const keyOf = (event) => `${event.migration}/${event.index}`;

// What somebody should look at comes first; then what is under way; then by name.
const ORDER = { "syncing": 1, "target-selected": 2, "source-selected": 3, "setup": 4, "committed": 5 };

// Where the host cannot rely on the journal; what is not known says nothing.
export const isUnsound = (row) => Boolean(row.journal && row.journal !== "sound");

export const wantsAttention = (row) =>
  Boolean(row.trouble || row.errors || isUnsound(row) || row.faults || row.unreadable || (row.authority === "target" && row.state !== "committed"));

const collator = new Intl.Collator("en", { numeric: true });

export function sorted(rows) {
  return rows.sort((a, b) =>
    Number(wantsAttention(b)) - Number(wantsAttention(a))
    || (ORDER[a.state] ?? 9) - (ORDER[b.state] ?? 9)
    || collator.compare(a.name, b.name));
}
