// The list of migrations. Only the rows that can be seen exist, so that hundreds cost what ten cost.

import { element, setText } from "./elements.js";
import { isUnsound, sorted, wantsAttention } from "./store.js";
import { GLYPHS, JOURNALS, NOT_KNOWN, STATES, briefly, count, percent } from "./words.js";

const ROW_HEIGHT = 62;
const SPARE_ROWS = 4;
const OLD_S = 45; // hosts tell of everything every half minute

export class List {
  constructor(store, choose) {
    this.store = store;
    this.choose = choose;
    this.box = document.querySelector("#list");
    this.holder = this.box.querySelector(".rows");
    this.filter = document.querySelector("#filter");
    this.chips = document.querySelector("#chips");
    this.empty = document.querySelector("#empty");
    this.shown = [];
    this.state = "";
    this.made = new Map();
    this.box.addEventListener("scroll", () => this.#draw(), { passive: true });
    this.filter.addEventListener("input", () => this.update());
    this.holder.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) this.choose(row.dataset.name);
    });
    new ResizeObserver(() => this.#draw()).observe(this.box);
  }

  update() {
    const wanted = this.filter.value.trim().toLowerCase();
    const rows = [...this.store.rows.values()];
    this.#drawChips(rows);
    this.shown = sorted(rows.filter((row) => this.#fits(row, wanted)));
    this.holder.style.height = `${this.shown.length * ROW_HEIGHT}px`;
    this.box.hidden = !this.shown.length;
    this.empty.hidden = Boolean(this.shown.length) || !this.store.isTold;
    setText(this.empty, rows.length ? "None fits the filter." : "There is no migration yet. `cutover setup` makes one.");
    this.#draw();
  }

  #fits(row, wanted) {
    if (this.state === "attention" ? !wantsAttention(row) : this.state && row.state !== this.state) return false;
    return !wanted || [row.name, row.state, row.host].some((text) => text.toLowerCase().includes(wanted));
  }

  #drawChips(rows) {
    const kinds = ["attention", ...STATES];
    for (const kind of kinds) {
      const number = rows.filter((row) => (kind === "attention" ? wantsAttention(row) : row.state === kind)).length;
      let chip = this.chips.querySelector(`[data-kind="${kind}"]`);
      if (!chip) {
        chip = element("button", { type: "button", class: "chip", data: { kind } },
          element("span", { class: "glyph", "aria-hidden": "true" }, kind === "attention" ? "▲" : GLYPHS[kind]),
          element("span", { class: "kind" }, kind === "attention" ? "attention" : kind),
          element("span", { class: "number" }));
        chip.addEventListener("click", () => {
          this.state = this.state === kind ? "" : kind;
          this.update();
        });
        this.chips.append(chip);
      }
      setText(chip.querySelector(".number"), String(number));
      chip.hidden = !number && this.state !== kind;
      chip.setAttribute("aria-pressed", String(this.state === kind));
    }
    document.body.toggleAttribute("data-single", rows.length === 1 && this.store.selected === rows[0].name);
    this.chips.hidden = rows.length < 2;
    this.filter.hidden = rows.length < 2 && !this.filter.value;
  }

  #draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    const last = Math.min(this.shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW_HEIGHT) + SPARE_ROWS);
    const seen = new Set();
    for (let at = first; at < last; at += 1) {
      const row = this.shown[at];
      seen.add(row.name);
      let made = this.made.get(row.name);
      if (!made) {
        made = makeRow(row.name);
        this.made.set(row.name, made);
        this.holder.append(made);
      }
      made.style.transform = `translateY(${at * ROW_HEIGHT}px)`;
      made.id = `row-${row.name}`;
      made.setAttribute("aria-posinset", String(at + 1));
      made.setAttribute("aria-setsize", String(this.shown.length));
      const isSelected = row.name === this.store.selected;
      made.setAttribute("aria-selected", String(isSelected));
      fillRow(made, row, this.store.age(row.heard));
    }
    for (const [name, made] of this.made) {
      if (!seen.has(name)) {
        made.remove();
        this.made.delete(name);
      }
    }
    if (this.made.has(this.store.selected)) this.box.setAttribute("aria-activedescendant", `row-${this.store.selected}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  // The neighbour of the selected one, so many rows on.
  step(by) {
    const at = this.shown.findIndex((row) => row.name === this.store.selected);
    const next = at < 0 ? 0 : Math.min(this.shown.length - 1, Math.max(0, at + by));
    if (this.shown[next]) this.choose(this.shown[next].name, { stay: true });
  }

  reveal() {
    const at = this.shown.findIndex((row) => row.name === this.store.selected);
    if (at < 0) return;
    const top = at * ROW_HEIGHT, bottom = top + ROW_HEIGHT;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (bottom > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = bottom - this.box.clientHeight;
    this.#draw();
  }
}

function makeRow(name) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("span", { class: "done" }));
  return element("div", { class: "row", role: "option", data: { name } },
    element("span", { class: "glyph", "aria-hidden": "true" }),
    element("span", { class: "row-name" }, name),
    element("span", { class: "row-state" }),
    element("span", { class: "row-figures" }),
    bar);
}

function fillRow(made, row, age) {
  made.dataset.state = row.state;
  made.classList.toggle("attention", wantsAttention(row));
  made.classList.toggle("old", age === null || age > OLD_S);
  setText(made.querySelector(".glyph"), wantsAttention(row) ? "▲" : GLYPHS[row.state] ?? "?");
  setText(made.querySelector(".row-state"), row.paused && row.state === "syncing" ? "syncing, paused" : row.state);
  setText(made.querySelector(".row-figures"), figuresOf(row, age));
  const part = row.synced === null || !row.size ? 0 : row.synced / row.size;
  made.querySelector(".done").style.transform = `scaleX(${row.state === "setup" ? 0 : part})`;
}

function figuresOf(row, age) {
  if (age !== null && age > OLD_S) return `heard ${briefly(age)} ago`;
  if (row.trouble) return row.closed ? "closed" : row.host ? "host away" : "host not known";
  if (row.errors) return "application errors";
  if (isUnsound(row)) return `journal ${JOURNALS[row.journal] ?? row.journal}`;
  if (row.faults) return row.faults === 1 ? "1 fault" : `${row.faults} faults`;
  if (row.compared !== null) return `comparing, ${percent(row.compared, row.size)}`;
  if (row.state === "syncing") {
    if (row.synced === null) return NOT_KNOWN;
    const end = row.eta === null ? "" : ` · ${briefly(row.eta)} left`;
    return `${percent(row.synced, row.size)}${end}`;
  }
  if (row.reads === null) return `IOPS ${NOT_KNOWN}`;
  const operations = row.reads + row.writes;
  return operations >= 0.5 ? `${count(operations)} IOPS` : "";
}
