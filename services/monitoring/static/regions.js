// The picture of the regions, on a canvas: a cell for each share of the volume, told apart by shape as well as by colour.

import { element, renew } from "./elements.js";

export const KINDS = {
  s: { name: "in sync", colour: "--in-sync" },
  d: { name: "written lately", colour: "--dirty" },
  c: { name: "being copied", colour: "--copying" },
  x: { name: "differing", colour: "--differing" },
  u: { name: "unreadable", colour: "--unreadable" },
};
const GAP = 2;
const CELL_MAX = 30;

export function drawRegions(canvas, cells) {
  const width = canvas.clientWidth;
  if (!width || !cells) return;
  const columns = columnsFor(width, cells.length);
  const cell = Math.min(CELL_MAX, (width + GAP) / columns - GAP);
  const rows = Math.ceil(cells.length / columns);
  const height = Math.ceil(rows * (cell + GAP) - GAP);
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const style = getComputedStyle(canvas);
  const colours = Object.fromEntries(Object.entries(KINDS).map(([kind, { colour }]) => [kind, style.getPropertyValue(colour).trim()]));
  for (let at = 0; at < cells.length; at += 1) {
    drawCell(pen, cells[at], (at % columns) * (cell + GAP), Math.floor(at / columns) * (cell + GAP), cell, colours, style);
  }
}

// So many that the cells are not too large, and a number by which a person can count.
function columnsFor(width, number) {
  for (const columns of [16, 32]) {
    if ((width + GAP) / columns - GAP <= CELL_MAX) return Math.min(columns, number);
  }
  return Math.min(64, number);
}

function drawCell(pen, kind, x, y, size, colours, style) {
  const colour = colours[kind] ?? colours.x;
  pen.fillStyle = colour;
  pen.strokeStyle = colour;
  pen.lineWidth = 1.25;
  pen.beginPath();
  pen.roundRect(x, y, size, size, Math.min(3, size / 4));
  if (kind === "x") { // hollow
    pen.save();
    pen.clip();
    pen.lineWidth = 2.5;
    pen.stroke();
    pen.restore();
    return;
  }
  pen.fill();
  pen.fillStyle = pen.strokeStyle = style.getPropertyValue("--on-cell").trim();
  const middle = [x + size / 2, y + size / 2], reach = size * 0.22;
  pen.beginPath();
  if (kind === "d") { // a dot
    pen.arc(...middle, Math.max(1.4, size * 0.16), 0, 2 * Math.PI);
    pen.fill();
  } else if (kind === "c") { // an arrow to the right
    pen.moveTo(middle[0] - reach, middle[1] - reach);
    pen.lineTo(middle[0] + reach, middle[1]);
    pen.lineTo(middle[0] - reach, middle[1] + reach);
    pen.closePath();
    pen.fill();
  } else if (kind === "u") { // a cross
    pen.moveTo(middle[0] - reach, middle[1] - reach);
    pen.lineTo(middle[0] + reach, middle[1] + reach);
    pen.moveTo(middle[0] + reach, middle[1] - reach);
    pen.lineTo(middle[0] - reach, middle[1] + reach);
    pen.lineWidth = 1.8;
    pen.stroke();
  }
}

export function tallies(cells) {
  return Object.keys(KINDS).map((kind) => [kind, [...cells].filter((cell) => cell === kind).length]).filter(([, number]) => number);
}

export function drawLegend(list, cells) {
  const found = tallies(cells);
  renew(list, found, () => found.map(([kind, number]) =>
    element("li", {},
      element("span", { class: `swatch swatch-${kind}`, "aria-hidden": "true" }),
      element("span", {}, KINDS[kind].name),
      element("span", { class: "number" }, `${Math.round((100 * number) / cells.length) || "< 1"} %`))));
}
