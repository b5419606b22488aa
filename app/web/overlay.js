/* Masks as shapes: a soft fill under a crisp line, at any zoom.
 *
 * shapeOf(rle)                    {path, box, area, size} of a COCO RLE; worked out once an RLE
 * shapeOfBits(bits, width, height, within)  the same of a row-major bitmap, bits[y * width + x];
 *     within [left, top, right, bottom] bounds where anything is, and spares looking elsewhere
 *     path  Path2D in pixels of the image, its corners cut at half a pixel
 *     box   [x, y, width, height] of what is inside; null where nothing is
 * drawShape(context, shape, colour, {scale, fill, line, dashed})
 *     the context is already in pixels of the image; scale is screen pixels a pixel of it
 * drawPoint(context, x, y, {scale, colour, positive})   an annotated point, with a dark rim
 * colourOf(index)                 of a class or an object: told apart on light and dark grounds
 */

import { decode } from "./rle.js";

const PALETTE = [
  "#e69f00", "#56b4e9", "#00b386", "#f0e442", "#3d8bfd",
  "#f0642d", "#d982b5", "#a98bdb", "#22cfe0", "#c3d94e",
];
const AHEAD = [[1, 0], [0, 1], [-1, 0], [0, -1]]; // east, south, west, north
const RIGHT = [[0, 0], [-1, 0], [-1, -1], [0, -1]]; // pixel ahead on the right of a corner
const LEFT = [[0, -1], [0, 0], [-1, 0], [-1, -1]];
const known = new WeakMap();

export const colourOf = (index) => PALETTE[((index % PALETTE.length) + PALETTE.length) % PALETTE.length];

export function shapeOf(rle) {
  if (!known.has(rle)) {
    const { bits, width, height } = decode(rle);
    known.set(rle, shapeOfBits(bits, width, height));
  }
  return known.get(rle);
}

export function shapeOfBits(bits, width, height, within = [0, 0, width, height]) {
  const { box, area } = extent(bits, width, within);
  const path = new Path2D();
  if (box) for (const ring of rings(bits, width, height, box)) trace(path, ring);
  return { path, box, area, size: [width, height] };
}

export function drawShape(context, shape, colour, { scale = 1, fill = 0.32, line = 1.75, dashed = false } = {}) {
  context.save();
  context.lineJoin = "round";
  context.fillStyle = colour;
  context.globalAlpha *= fill;
  context.fill(shape.path, "evenodd");
  context.globalAlpha /= fill || 1;
  if (line > 0) {
    context.strokeStyle = "rgb(0 0 0 / 55%)"; // a dark rim holds the line on bright grounds
    context.lineWidth = (line + 1.75) / scale;
    context.stroke(shape.path);
    if (dashed) context.setLineDash([6 / scale, 4 / scale]);
    context.strokeStyle = colour;
    context.lineWidth = line / scale;
    context.stroke(shape.path);
  }
  context.restore();
}

export function drawPoint(context, x, y, { scale = 1, colour = "#ffffff", positive = true } = {}) {
  const radius = 5 / scale;
  context.save();
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  context.lineWidth = 2 / scale;
  context.strokeStyle = "rgb(0 0 0 / 85%)";
  context.stroke();
  context.beginPath();
  context.moveTo(x - radius / 2, y);
  context.lineTo(x + radius / 2, y);
  if (positive) {
    context.moveTo(x, y - radius / 2);
    context.lineTo(x, y + radius / 2);
  }
  context.lineWidth = 1.5 / scale;
  context.stroke();
  context.restore();
}

function extent(bits, width, [x0, y0, x1, y1]) {
  let [left, top, right, bottom, area] = [x1, y1, -1, -1, 0];
  for (let y = y0; y < y1; y++) {
    for (let x = x0, at = y * width + x0; x < x1; x++, at++) {
      if (!bits[at]) continue;
      area++;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      bottom = y;
    }
  }
  return { area, box: area ? [left, top, right - left + 1, bottom - top + 1] : null };
}

/* Borders between in and out, each a closed ring of [x, y, x, y, …]: along the edges of pixels with
   the inside on the right, so that holes come as rings of their own. */
function* rings(bits, width, height, [left, top, wide, high]) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && bits[y * width + x] > 0;
  const seen = new Uint8Array(wide * high); // upper edges that a ring has passed
  for (let y = top; y < top + high; y++) {
    for (let x = left; x < left + wide; x++) {
      if (!inside(x, y) || inside(x, y - 1) || seen[(y - top) * wide + x - left]) continue;
      yield follow(inside, x, y, (px, py) => { seen[(py - top) * wide + px - left] = 1; });
    }
  }
}

function follow(inside, startX, startY, mark) {
  const ring = [];
  let [x, y, way, before] = [startX, startY, 0, -1];
  do {
    if (way === 0) mark(x, y);
    const [dx, dy] = AHEAD[way];
    const [cx, cy] = [x + dx, y + dy];
    const [rx, ry] = RIGHT[way];
    const [lx, ly] = LEFT[way];
    let next = way;
    if (!inside(cx + rx, cy + ry)) next = (way + 1) % 4;
    else if (inside(cx + lx, cy + ly)) next = (way + 3) % 4;
    if (way !== before || next !== way) ring.push(x + dx / 2, y + dy / 2);
    [x, y, before, way] = [cx, cy, way, next];
  } while (x !== startX || y !== startY || way !== 0);
  return ring;
}

function trace(path, ring) {
  path.moveTo(ring[0], ring[1]);
  for (let i = 2; i < ring.length; i += 2) path.lineTo(ring[i], ring[i + 1]);
  path.closePath();
}
