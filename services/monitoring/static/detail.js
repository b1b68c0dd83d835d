// Everything about the migration that is looked at.

import { Chart } from "./charts.js";
import { element, renew, setText } from "./elements.js";
import { drawLegend, drawRegions, tallies, KINDS } from "./regions.js";
import { isUnsound } from "./store.js";
import { GLYPHS, JOURNALS, MEANINGS, NOT_KNOWN, ago, bytes, clock, count, duration, latency, percent, plural, rate, told as known } from "./words.js";

const UNREADABLE_REGIONS_MAX = 16; // that are told of, as in shared/messages/status.py

const [, COPY, READS, WRITES, READ_LATENCY, WRITE_LATENCY] = [0, 1, 2, 3, 4, 5];
const TONES = { step: "●", note: "○", care: "◆", trouble: "▲" };
const OLD_S = 45;

export class Detail {
  constructor(store) {
    this.store = store;
    this.root = document.querySelector("#detail");
    this.one = this.root.querySelector(".one");
    this.nothing = this.root.querySelector(".nothing");
    this.map = this.root.querySelector(".map");
    this.charts = [
      new Chart("Copy", [[COPY, "a", ""]], rate),
      new Chart("Application", [[READS, "a", "reads"], [WRITES, "b", "writes"]], (value) => `${count(value)}/s`),
      new Chart("Latency", [[READ_LATENCY, "a", "read"], [WRITE_LATENCY, "b", "write"]], latency),
    ];
    this.root.querySelector(".charts").append(...this.charts.map((chart) => chart.element));
    this.diagram = this.root.querySelector(".diagram-holder");
    new ResizeObserver(() => this.#drawMap()).observe(this.map.parentElement);
    new ResizeObserver(() => this.#centre()).observe(this.diagram); // also when it comes into sight, or a phone is turned
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#drawMap());
  }

  update() {
    const row = this.store.rows.get(this.store.selected);
    const told = this.store.detail?.name === this.store.selected ? this.store.detail : null;
    this.one.hidden = !row;
    this.nothing.hidden = Boolean(row);
    if (!row) {
      const words = this.store.selected && this.store.isTold ? `There is no migration ${this.store.selected}.` : "Nothing is selected.";
      setText(this.nothing, this.store.isTold ? words : "");
      return;
    }
    this.#head(row, told);
    this.#figures(row, told);
    this.#state(row, told);
    if (!told) return;
    this.#notices(row, told);
    this.told = told;
    this.#drawMap();
    for (const chart of this.charts) chart.update(told.points);
    this.#stories(told);
    this.#faults(told);
    this.#facts(row, told);
  }

  // What grows old by itself.
  tick() {
    const row = this.store.rows.get(this.store.selected);
    const told = this.told;
    if (!row || !told || told.name !== row.name) return;
    const host = this.store.age(told.view_heard), journal = this.store.age(told.status_heard);
    const parts = [];
    if (host !== null) parts.push(`host: ${ago(host)}`);
    if (journal !== null) parts.push(`journal: ${ago(journal)}`);
    setText(this.one.querySelector(".facts-age"), parts.join(" · "));
    this.one.classList.toggle("old", !told.live || host === null || host > OLD_S);
  }

  #head(row, told) {
    setText(this.one.querySelector(".name"), row.name);
    this.one.dataset.state = row.state;
    const badges = [["state", `${GLYPHS[row.state] ?? "?"} ${row.state === "unknown" ? "state not known" : row.state}`, MEANINGS[row.state]]];
    if (row.attempt) badges.push(["", `attempt ${row.attempt}`, ""]);
    badges.push(row.flag
      ? ["flag", "⚑ error flag set", "Writes are being cloned: a stop that is not clean would cost a resync"]
      : ["", "⚐ flag clear", "No cloned write is at stake"]);
    if (row.authority === "target" && row.state !== "committed") badges.push(["trouble", "▲ on the target alone", "The source has failed"]);
    if (row.faults) badges.push(["trouble", `▲ ${plural(row.faults, "fault", "faults")}`, "In this attempt"]);
    if (row.paused && row.state !== "setup") badges.push(["care", "❚❚ paused", ""]);
    if (row.errors) badges.push(["trouble", "▲ application errors", "Requests of the application fail; the notice below says which"]);
    if (row.closed) badges.push(["trouble", "▲ closed", "Its host refuses application I/O"]);
    if (isUnsound(row)) {
      badges.push(["trouble", `▲ the journal ${JOURNALS[row.journal] ?? row.journal}`, "Nothing is recorded in it before that is mended"]);
    } else if (told?.live) {
      badges.push(row.pending
        ? ["care", `◆ decision ${told.decision}: journal lags`, "The host's witness has it; the journal does not hold it yet"]
        : ["", `✓ witness and journal agree`, `Decision ${told.decision} is in the host's witness and in the journal`]);
    }
    renew(this.one.querySelector(".badges"), badges, () => badges.map(([kind, text, title]) =>
      element("span", { class: `badge ${kind}`, title: title || null }, text)));
  }

  #notices(row, told) {
    const notices = [];
    if (row.trouble) notices.push(["trouble", row.trouble]);
    if (row.unreadable) notices.push(["trouble", `The source could not be read in regions ${told.unreadable_regions?.join(", ")}${told.unreadable_regions?.length >= UNREADABLE_REGIONS_MAX ? ", and perhaps more" : ""}. Restore them, or abort.`]);
    if (told.outstanding) notices.push(["care", `${plural(told.outstanding, "request", "requests")} of an earlier attempt may still land on the target.`]);
    for (const warning of told.warnings) notices.push([warning === told.errors ? "trouble" : "care", warning]);
    renew(this.one.querySelector(".notices"), notices, () => notices.map(([kind, text]) =>
      element("p", { class: `notice ${kind}` }, element("span", { "aria-hidden": "true" }, kind === "care" ? "◆" : "▲"), ` ${text}`)));
  }

  #figures(row, told) {
    const comparing = told?.verification && told.verification.outcome === null ? told.verification : null;
    const figures = [];
    if (comparing) {
      figures.push(["Compared", percent(comparing.compared_bytes, row.size), `${bytes(comparing.remaining_bytes)} left`]);
      figures.push(["Rate", rate(comparing.rate_bytes_per_s), comparing.eta_s === null ? "" : `${duration(comparing.eta_s)} to go`]);
    } else if (row.state === "syncing") {
      const left = row.remaining === null ? "" : `${bytes(row.remaining)} left of `;
      figures.push(["In sync", known(row.synced, (synced) => percent(synced, row.size)), `${left}${bytes(row.size)}`]);
      const throttle = told?.throttle ? `limit ${rate(told.throttle)}` : "";
      figures.push(["Rate", row.paused ? "paused" : known(row.rate, rate), throttle]);
      figures.push(["To go", row.rate === null ? NOT_KNOWN : duration(row.eta), row.eta === null ? "" : `until ${clock((this.store.now() + row.eta) * 1000)}`]);
    } else {
      const inSync = row.state === "setup" ? (row.attempt ? "not in sync" : "not copied") : row.state === "committed" ? "moved" : "100 %";
      figures.push([row.state === "committed" ? "Done" : "In sync", row.trouble || row.state === "unknown" ? "not known" : inSync, row.size ? bytes(row.size) : ""]);
      if (row.state === "setup" && told?.resync !== null && told?.resync !== undefined) {
        figures.push(["A sync copies", bytes(told.resync), told.full_because ?? "what may differ"]);
      }
    }
    const clients = row.clients === null ? "" : plural(row.clients, "client", "clients");
    if (row.reads === null) {
      figures.push(["Application", row.closed ? "closed" : NOT_KNOWN, clients]);
      figures.push(["Latency", row.closed ? "–" : NOT_KNOWN, ""]);
    } else {
      figures.push(["Application", `${count(row.reads + row.writes)} IOPS`, row.clients ? `${count(row.reads)} reads, ${count(row.writes)} writes` : clients]);
      figures.push(["Latency", latencyWords(told), worstWords(told)]);
    }
    const list = this.one.querySelector(".figures");
    renew(list, figures.map(([label]) => label), () => figures.map(([label]) =>
      element("div", {}, element("dt", {}, label), element("dd", {}), element("dd", { class: "small" }))));
    figures.forEach(([, value, small], at) => {
      const [, big, little] = list.children[at].children;
      setText(big, value);
      setText(little, small ?? "");
    });
  }

  #state(row, told) {
    const diagram = this.one.querySelector(".diagram");
    const stories = told?.stories ?? [];
    const steps = stories.filter((story) => story.state);
    const attempt = steps.slice(Math.max(0, steps.findLastIndex((story) => story.trigger === "sync") - 1)); // the present one
    const ways = new Set();
    let before = "";
    for (const story of attempt) {
      if (before) ways.add(`${before}>${story.state}>${story.trigger}`);
      before = story.state;
    }
    const last = steps.at(-1);
    for (const state of diagram.querySelectorAll(".state")) {
      const name = state.dataset.state;
      state.classList.toggle("here", name === row.state);
      state.classList.toggle("been", name !== row.state && attempt.some((story) => story.state === name));
    }
    for (const arrow of diagram.querySelectorAll(".arrow")) {
      const { from, to, triggers } = arrow.dataset;
      const gone = (trigger) => ways.has(`${from}>${to}>${trigger}`) || (trigger === "target-fault" && (ways.has(`${from}>${to}>unclean`) || ways.has(`${from}>${to}>faulted`)));
      arrow.classList.toggle("gone", triggers.split(" ").some(gone));
    }
    if (this.centred !== `${row.name} ${row.state}`) {
      this.centred = `${row.name} ${row.state}`;
      this.#centre();
    }
    setText(diagram.querySelector("title"), `States of a migration; ${row.name} is in ${row.state}`);
    setText(this.one.querySelector(".since"), last && last.state === row.state ? `${row.state} since ${clock(sinceOf(steps))}` : row.state);
  }

  // Where the diagram is wider than the screen, show the part where the migration is.
  #centre() {
    const here = this.diagram.querySelector(".here rect")?.getBoundingClientRect();
    const holder = this.diagram.getBoundingClientRect();
    if (here) this.diagram.scrollLeft += here.x + here.width / 2 - holder.x - holder.width / 2;
  }

  #drawMap() {
    const told = this.told;
    const card = this.one.querySelector(".map-card");
    if (!told || this.one.hidden) return;
    const row = this.store.rows.get(told.name);
    const caption = this.one.querySelector(".map-caption");
    const cells = told.cells ?? "";
    card.classList.toggle("empty", !cells);
    if (!cells) {
      const words = row?.state === "committed" || row?.authority === "target" ? "the target alone is in use" : row?.trouble ? NOT_KNOWN : "not told yet";
      setText(caption, words);
      drawLegend(this.one.querySelector(".legend"), "");
      return;
    }
    setText(caption, `${bytes(row ? row.size / cells.length : 0)} a cell`);
    drawRegions(this.map, cells);
    drawLegend(this.one.querySelector(".legend"), cells);
    const words = tallies(cells).map(([kind, number]) => `${number} ${KINDS[kind].name}`).join(", ");
    this.map.setAttribute("aria-label", `Regions of ${told.name}, in ${cells.length} shares: ${words}`);
  }

  #stories(told) {
    const list = this.one.querySelector(".stories");
    const stories = told.stories;
    renew(list, [told.name, stories?.length, stories?.at(-1)?.index, told.is_whole], () => {
      if (stories === null) return [element("li", { class: "empty" }, "The journal has not been read yet.")];
      const items = [...stories].reverse().map(storyItem);
      if (!told.is_whole) items.push(element("li", { class: "empty" }, "Older records are in the journal."));
      return items;
    });
  }

  #faults(told) {
    const holder = this.one.querySelector(".faults");
    setText(this.one.querySelector(".fault-caption"), told.fault_count > told.faults.length ? `the last ${told.faults.length} of ${told.fault_count}` : "");
    const attempt = this.store.rows.get(told.name)?.attempt;
    renew(holder, [told.name, attempt, told.faults], () => {
      if (!told.faults.length) return [element("p", { class: "empty" }, "None is recorded.")];
      const head = ["Detected", "Attempt", "Side", "Operation", "Cause", "Where", "Recorded"].map((text) => element("th", { scope: "col" }, text));
      const lines = [...told.faults].reverse().map((fault) => element("tr", { class: fault.attempt === attempt ? "current" : "" },
        ...[clock(fault.detected_at), String(fault.attempt), fault.side, fault.operation, fault.cause, placeOf(fault),
          fault.recorded_at ? clock(fault.recorded_at) : "not yet"].map((text) => element("td", {}, text))));
      return [element("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Fault log" },
        element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines)))];
    });
  }

  #facts(row, told) {
    const untold = row.closed ? "closed" : NOT_KNOWN; // where its host does not tell of it
    const facts = [
      ["Source", deviceWords(told.source)],
      ["Target", deviceWords(told.target)],
      ["Volume", told.live ? told.export ?? "closed" : untold],
      ["Clients", told.live || row.closed ? clientWords(told.connections) : NOT_KNOWN],
      ["Routing", told.live ? routingWords(told.routing) : untold],
      ["Authority", row.authority],
      ["Host", told.engine ? `${row.host}, run ${told.run} (${told.engine})` : row.host],
      ["Moved", told.live ? `${count(told.total_reads)} reads and ${count(told.total_writes)} writes since the volume was opened` : untold],
      ["Compared", told.live ? comparedWords(told) : NOT_KNOWN],
      ["UUID", told.uuid],
    ];
    renew(this.one.querySelector(".facts"), facts, () => facts.map(([label, value]) =>
      element("div", {}, element("dt", {}, label), element("dd", {}, value))));
    this.tick();
  }
}

export function storyItem(story) {
  return element("li", { class: `story ${story.tone}` },
    element("span", { class: "tone", "aria-hidden": "true" }, TONES[story.tone] ?? "●"),
    element("div", {},
      element("p", { class: "story-title" }, story.title),
      element("p", { class: "story-text" }, story.text)),
    element("time", { datetime: story.at }, clock(story.at)));
}

// When the last state was entered: later stories of the same state do not begin it anew.
function sinceOf(steps) {
  let since = steps[0];
  for (const story of steps) if (story.state !== since.state) since = story;
  return since.at;
}

function latencyWords(told) {
  const [read, write] = [told?.read_latency, told?.write_latency];
  if (!read && !write) return "–";
  const [first, second] = [read, write].filter(Boolean).map((each) => latency(each.mean_s));
  if (!second) return first;
  const unit = second.slice(second.indexOf(" "));
  return first.endsWith(unit) ? `${first.slice(0, -unit.length)} / ${second}` : `${first} / ${second}`;
}

function worstWords(told) {
  const worst = Math.max(told?.read_latency?.worst_s ?? 0, told?.write_latency?.worst_s ?? 0);
  if (!worst) return "no request sampled";
  const kinds = [told.read_latency && "read", told.write_latency && "write"].filter(Boolean).join(" / ");
  return `${kinds}, worst ${latency(worst)}`;
}

const placeOf = (fault) => (fault.offset === null ? "–" : `${fault.length === null ? "" : `${bytes(fault.length)} `}at ${fault.offset}`);

const deviceWords = (device) => (device ? `${device.name} (${device.kind}, ${bytes(device.size)})` : "–");

const clientWords = (clients) =>
  clients?.length ? clients.map((client) => `${client.peer}, since ${clock(client.connected_at)}`).join("\n") : "none";

function routingWords(routing) {
  const both = (sides) => [...sides].sort().join(" and ");
  return `reads from ${routing.reads}, writes to ${both(routing.writes)}, flushes to ${both(routing.flushes)}`;
}

function comparedWords(told) {
  if (told.verified_at) return `equal everywhere at ${clock(told.verified_at)}`;
  if (told.verification?.outcome) return `${told.verification.outcome}${told.verification.detail ? `: ${told.verification.detail}` : ""}`;
  if (told.verification) return "under way";
  return told.needs_verify ? "not yet: the last sync was partial, so commit wants it" : "not in this attempt";
}


