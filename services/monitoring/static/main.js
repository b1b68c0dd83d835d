// Puts the page together: what is told, what is selected, and the keyboard.

import { Around } from "./around.js";
import { Detail } from "./detail.js";
import { List } from "./list.js";
import { Operator } from "./operator.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";

const store = new Store();
const list = new List(store, choose);
const detail = new Detail(store);
const around = new Around(store, choose);
const operator = new Operator(store);
const stream = new Stream(store, (isServed) => around.served(isServed));
const isNarrow = window.matchMedia("(max-width: 760px)");
let hasChosen = false; // an empty choice was made by somebody, and is not to be filled in
let isDrawing = false;

function choose(name, { stay = false } = {}) {
  const hash = `#/${encodeURIComponent(name)}`;
  if (location.hash === hash) return;
  if (stay) {
    history.replaceState(null, "", hash);
    chosen();
  } else {
    location.hash = hash;
  }
}

function chosen() {
  const name = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  hasChosen = true;
  select(name);
}

function select(name) {
  store.selected = name;
  document.body.dataset.view = name ? "detail" : "list";
  stream.open(name);
  draw();
  list.reveal();
  if (isNarrow.matches) window.scrollTo(0, 0);
}

// What was told is drawn once for each picture on the screen, however often it is told.
function draw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    list.update();
    detail.update();
    around.update();
    operator.update();
    document.body.dataset.drawn = String(Number(document.body.dataset.drawn ?? 0) + 1);
  });
}

store.addEventListener("change", () => {
  if (!store.selected && !hasChosen && store.rows.size && (store.rows.size === 1 || !isNarrow.matches)) {
    list.update();
    if (list.shown.length) select(list.shown[0].name);
  }
  draw();
});
window.addEventListener("hashchange", chosen);
setInterval(() => { around.tick(); detail.tick(); }, 1000);

const help = document.querySelector("#keys");
document.querySelector("#help").addEventListener("click", () => help.showModal());

const isTyping = (target) => target instanceof HTMLElement && (target.matches("input, textarea, select") || target.isContentEditable);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (isTyping(event.target)) {
      list.filter.value = "";
      list.update();
      list.box.focus();
    } else if (isNarrow.matches && store.selected) {
      choose("");
    } else {
      list.box.focus();
    }
    return;
  }
  if (isTyping(event.target)) {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      list.box.focus();
      if (event.key === "Enter" && list.shown.length) choose(list.shown[0].name);
    }
    return;
  }
  const isInList = event.target === list.box || event.target === document.body;
  const steps = { j: 1, k: -1, ...(isInList ? { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity } : {}) };
  if (event.key in steps) {
    event.preventDefault();
    list.step(steps[event.key]);
  } else if (event.key === "Enter" && event.target === list.box && store.selected) {
    event.preventDefault();
    detail.root.focus();
    document.body.dataset.view = "detail";
  } else if (event.key === "/") {
    event.preventDefault();
    list.filter.hidden = false;
    list.filter.focus();
  } else if (event.key === "?") {
    event.preventDefault();
    help.showModal();
  }
});

if (location.hash.length > 2) chosen();
else stream.open("");
operator.begin().catch(() => null);
