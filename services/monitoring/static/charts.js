// Small charts of the last minutes: a line or two over time, the newest value in words beside it.

import { drawn, element, setText } from "./elements.js";
import { NOT_KNOWN } from "./words.js";

const WIDTH = 300, HEIGHT = 56, PADDING = 3;
const WINDOW_S = 180;
const BREAK_S = 4; // a host that is silent for longer has nothing to tell: nothing moved

export class Chart {
  constructor(title, lines, words) {
    this.lines = lines; // [column, class, label]
    this.words = words;
    this.paths = lines.map(([, kind]) => drawn("path", { class: `line ${kind}` }));
    this.peak = element("span", { class: "peak" });
    this.values = lines.map(([, kind, label]) => [
      element("span", { class: `key ${kind}`, "aria-hidden": "true" }), label, element("b", {}),
    ]);
    this.picture = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      drawn("line", { class: "ground", x1: 0, x2: WIDTH, y1: HEIGHT - PADDING, y2: HEIGHT - PADDING }), ...this.paths);
    this.element = element("figure", { class: "chart" },
      element("figcaption", {}, element("span", { class: "chart-title" }, title),
        ...this.values.map((parts) => element("span", { class: "value" }, parts[0], parts[1] ? `${parts[1]} ` : "", parts[2]))),
      this.picture, this.peak);
  }

  update(points) {
    const end = points.length ? points[points.length - 1][0] : 0;
    const seen = points.filter((point) => point[0] > end - WINDOW_S);
    const top = Math.max(0, ...this.lines.flatMap(([column]) => seen.map((point) => point[column] ?? 0)));
    const x = (at) => WIDTH - ((end - at) / WINDOW_S) * WIDTH;
    const y = (value) => HEIGHT - PADDING - (top ? value / top : 0) * (HEIGHT - 2 * PADDING);
    const newest = seen.at(-1);
    const isKnown = newest?.slice(1).some((value) => value !== null); // else the host cannot be heard, or has said nothing yet
    this.lines.forEach(([column], at) => {
      this.paths[at].setAttribute("d", pathOf(seen, column, x, y));
      setText(this.values[at][2], isKnown ? this.words(newest[column]) : NOT_KNOWN);
    });
    setText(this.peak, top ? `peak ${this.words(top)}` : "");
  }
}

function pathOf(points, column, x, y) {
  let path = "", before = null;
  for (const point of points) {
    const value = point[column];
    if (value === null) { before = null; continue; }
    const joins = before !== null && point[0] - before < BREAK_S;
    path += `${joins ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(value).toFixed(1)}`;
    before = point[0];
  }
  return path;
}
