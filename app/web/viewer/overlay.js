/* Masks as shapes: a soft fill under a crisp line, at any zoom.

   shapeOf(rle)            {path, box, area} of a COCO RLE; worked out once an RLE
   shapeOfMask(mask, height, width, within)   the same of a mask as rle.js decodes it (column-major);
                           within [left, top, right, bottom] bounds where anything is
       path                Path2D in pixels of the image; its corners are cut at half a pixel
       box                 [x, y, width, height] of what is inside; null where nothing is
   drawShape(ctx, shape, colour, {scale, fill, line, dashed})
                           ctx is in pixels of the image; scale: screen pixels an image's pixel
   drawPoint(ctx, x, y, {scale, colour, positive, plain})   a point, with a + or − in it unless plain
   objectColour(index)     colours that tell neighbours apart, as css */

import { colour, css } from "./colours.js";
import { bounds, decode } from "./rle.js";

const AHEAD = [[1, 0], [0, 1], [-1, 0], [0, -1]]; // east, south, west, north
const RIGHT = [[0, 0], [-1, 0], [-1, -1], [0, -1]]; // pixel ahead on the right of a corner
const LEFT = [[0, -1], [0, 0], [-1, 0], [-1, -1]];
const shapes = new WeakMap();

export const objectColour = (index) => css(colour(((index % 9) + 9) % 9));

export function shapeOf(rle) {
  if (!shapes.has(rle)) {
    const [height, width] = rle.size;
    const [x, y, w, h] = bounds(rle);
    shapes.set(rle, shapeOfMask(w ? decode(rle) : [], height, width, [x, y, x + w, y + h]));
  }
  return shapes.get(rle);
}

export function shapeOfMask(mask, height, width, within = [0, 0, width, height]) {
  const { box, area } = extent(mask, height, within);
  const path = new Path2D();
  if (box) for (const ring of rings(mask, height, width, box)) trace(path, ring);
  return { path, box, area };
}

export function drawShape(ctx, shape, colour, { scale = 1, fill = 0.32, line = 1.75, dashed = false } = {}) {
  ctx.save();
  ctx.lineJoin = "round";
  ctx.fillStyle = colour;
  const alpha = ctx.globalAlpha;
  ctx.globalAlpha = alpha * fill;
  ctx.fill(shape.path, "evenodd");
  ctx.globalAlpha = alpha;
  if (line > 0) {
    ctx.strokeStyle = "rgb(0 0 0 / 55%)"; // a dark rim holds the line on bright grounds
    ctx.lineWidth = (line + 1.75) / scale;
    ctx.stroke(shape.path);
    if (dashed) ctx.setLineDash([6 / scale, 4 / scale]);
    ctx.strokeStyle = `color-mix(in srgb, ${colour} 68%, white)`; // and brighter than what it encloses
    ctx.lineWidth = line / scale;
    ctx.stroke(shape.path);
  }
  ctx.restore();
}

export function drawPoint(ctx, x, y, { scale = 1, colour = "#ffffff", positive = true, plain = false } = {}) {
  const radius = (plain ? 4.5 : 7) / scale;
  ctx.save();
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.fillStyle = colour;
  ctx.fill();
  ctx.lineWidth = 2 / scale;
  ctx.strokeStyle = "rgb(0 0 0 / 85%)";
  ctx.stroke();
  if (!plain) {
    ctx.beginPath();
    ctx.moveTo(x - radius / 2, y);
    ctx.lineTo(x + radius / 2, y);
    if (positive) {
      ctx.moveTo(x, y - radius / 2);
      ctx.lineTo(x, y + radius / 2);
    }
    ctx.stroke();
  }
  ctx.restore();
}

function extent(mask, height, [x0, y0, x1, y1]) {
  let [left, top, right, bottom, area] = [x1, y1, -1, -1, 0];
  for (let x = x0; x < x1; x++) {
    for (let y = y0, at = x * height + y0; y < y1; y++, at++) {
      if (!mask[at]) continue;
      area++;
      if (x < left) left = x;
      right = x;
      if (y < top) top = y;
      if (y > bottom) bottom = y;
    }
  }
  return { area, box: area ? [left, top, right - left + 1, bottom - top + 1] : null };
}

/* Borders between in and out, each a closed ring of [x, y, x, y, …]: along the edges of pixels with
   the inside on the right, so that holes come as rings of their own. */
function* rings(mask, height, width, [left, top, wide, high]) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[x * height + y] > 0;
  const visited = new Uint8Array(wide * high); // upper edges that a ring has passed
  for (let y = top; y < top + high; y++) {
    for (let x = left; x < left + wide; x++) {
      if (!inside(x, y) || inside(x, y - 1) || visited[(y - top) * wide + x - left]) continue;
      yield follow(inside, x, y, (px, py) => { visited[(py - top) * wide + px - left] = 1; });
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
