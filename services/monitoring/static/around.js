// What is around the migrations: the connection, the services, the hosts, the journal, and the feed of events.

import { storyItem } from "./detail.js";
import { element, renew, setText } from "./elements.js";
import { wantsAttention } from "./store.js";
import { GLYPHS, STATES, ago, duration, plural, rate } from "./words.js";

const CARE_S = 14 * 86400; // from then on a certificate's end is told

export class Around {
  constructor(store, choose) {
    this.store = store;
    this.isServed = false;
    this.live = document.querySelector("#live");
    this.alarm = document.querySelector("#alarm");
    this.summary = document.querySelector("#summary");
    this.running = document.querySelector("#running");
    this.feed = document.querySelector("#feed");
    this.icon = document.querySelector("link[rel=icon]");
    this.feed.addEventListener("click", (event) => {
      const item = event.target.closest("[data-migration]");
      if (item && this.store.rows.has(item.dataset.migration)) choose(item.dataset.migration);
    });
    this.lastTold = 0;
  }

  served(isServed) {
    this.isServed = isServed;
    if (isServed) this.lastTold = Date.now();
    this.tick();
  }

  update() {
    this.#summarise();
    this.#runs();
    const newest = this.store.events[0];
    renew(this.feed, [this.store.events.length, newest?.migration, newest?.index, newest?.at], () =>
      this.store.events.length ? this.store.events.map(feedItem) : [element("li", { class: "empty" }, "Nothing has happened yet.")]);
    this.tick();
  }

  tick() {
    const link = this.store.around?.link;
    const isLinked = Boolean(link?.is_connected);
    const missing = missingIn(this.store.around);
    const state = !this.isServed ? "gone" : !this.store.isTold ? "waiting" : !isLinked ? "away" : missing.length ? "partly" : "live";
    document.body.dataset.live = state;
    const words = {
      waiting: "Connecting…",
      live: "Live",
      partly: missing.length === 1 ? `${missing[0]} does not answer` : `${missing.length} do not answer`,
      away: `NATS away for ${duration(this.store.age(link?.since))}`,
      gone: this.lastTold ? `No connection for ${duration((Date.now() - this.lastTold) / 1000)}` : "Connecting…",
    }[state];
    setText(this.live.querySelector(".words"), words);
    const alarm = state === "away"
      ? `NATS at ${link?.url || "its address"} cannot be reached: what is shown is as it was then. Application I/O goes on. This page waits.`
      : state === "gone" && this.lastTold
        ? "The monitoring service does not answer: what is shown is as it was then. Volumes are not touched by this. The page tries again by itself."
        : state === "partly" ? `${missing.join(", ")} ${missing.length === 1 ? "does" : "do"} not answer. Application I/O goes on where a host is up. ${WITHOUT[missing[0]] ?? WITHOUT.host}`
        : this.store.around?.durability?.is_established === false ? this.store.around.durability.because : "";
    setText(this.alarm, alarm);
    this.alarm.hidden = !alarm;
    this.#ages();
  }

  #summarise() {
    const rows = [...this.store.rows.values()];
    const trouble = rows.filter(wantsAttention).length;
    const copying = rows.reduce((sum, row) => sum + (row.rate ?? 0), 0);
    const parts = rows.length > 1 ? STATES.map((state) => [state, rows.filter((row) => row.state === state).length]).filter(([, number]) => number) : [];
    const words = [plural(rows.length, "migration", "migrations")];
    if (copying) words.push(`copying ${rate(copying)}`);
    if (trouble) words.push(`${trouble} ${trouble === 1 ? "wants" : "want"} attention`);
    setText(this.summary, words.join(" · "));
    this.summary.title = parts.map(([state, number]) => `${GLYPHS[state]} ${number} ${state}`).join("   ");
    document.title = trouble ? `▲ ${trouble} · Cutover` : "Cutover";
  }

  #runs() {
    const around = this.store.around;
    if (!around) return;
    const items = [
      ["NATS", around.link.is_connected, around.link.is_connected ? `version ${around.link.server_version}${certificateWords(around.certificate, this.store.now())}` : "away", null],
      ["Journal", around.durability.is_established, journalWords(around.durability), null],
      ...around.services.filter((service) => service.name !== "write_cloning").map((service) =>
        [service.name, service.count === null ? null : service.count > 0, service.count === null ? "not known now" : service.count ? plural(service.count, "instance", "instances") : "does not answer", null]),
      ...around.hosts.map((host) => [`host ${host.name}`, host.is_up, `${host.is_up === null ? "not known now" : host.is_up ? `up, run ${host.run}` : "away"} · ${plural(host.migrations, "migration", "migrations")}`, host.heard]),
    ];
    renew(this.running, items.map(([name, isUp, words]) => [name, isUp, words]), () => items.map(([name, isUp, words]) =>
      element("li", { class: isUp === null ? "unknown" : isUp ? "up" : "down" },
        element("span", { class: "mark", "aria-hidden": "true" }, isUp === null ? "?" : isUp ? "✓" : "✕"),
        element("span", { class: "what" }, name),
        element("span", { class: "how" }, words),
        element("span", { class: "when" }))));
    this.hosts = items;
  }

  #ages() {
    if (!this.hosts) return;
    [...this.running.children].forEach((item, at) => {
      const heard = this.hosts[at]?.[3];
      const age = this.store.age(heard);
      setText(item.querySelector(".when"), heard && age > 8 ? `heard ${ago(age)}` : "");
    });
  }
}

// What does not answer, and somebody needs: the services, and hosts that have migrations.
function missingIn(around) {
  if (!around?.link.is_connected) return [];
  const services = around.services.filter((service) => service.name !== "write_cloning" && service.count === 0);
  const hosts = around.hosts.filter((host) => host.is_up === false && host.migrations);
  return [...services.map((service) => service.name), ...hosts.map((host) => `host ${host.name}`)];
}

// What that means for whoever looks.
const WITHOUT = {
  state_control: "Commands are refused, and only what hosts tell of themselves is new here; decisions are recorded when it is back.",
  fault_recording: "No sync can begin; faults are recorded when it is back.",
  startup: "A host that starts stays closed.",
  host: "Whether the volumes of such a host are open is not known from here: cut off from NATS, it goes on serving.",
};

function certificateWords(notAfter, now) {
  const left = notAfter === null || notAfter === undefined ? Infinity : notAfter - now;
  if (left > CARE_S) return "";
  return left > 0 ? `, certificate expires in ${duration(left)}` : ", certificate has expired";
}

function journalWords(durability) {
  if (durability.is_established === null) return "not known now";
  return durability.is_established ? "syncs, then acknowledges" : "acknowledges before it syncs";
}

function feedItem(event) {
  const item = storyItem(event);
  item.dataset.migration = event.migration;
  item.querySelector(".story-title").prepend(element("b", {}, event.migration), " ");
  return item;
}
