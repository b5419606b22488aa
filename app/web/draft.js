/* The mask on the table in the review: what may be done to it, and undone. Knows no DOM.
 *
   new Draft(mask)            of a mask as the review gives it: {segmentation, candidates, …}
     .shape                   to be drawn (overlay.js), worked out when it is asked for
     .rle                     as it stands, a COCO RLE
     .changed                 whether there is anything to save
     .choice                  index of the candidate it is, untouched; null otherwise
     .points                  [{x, y, positive}] clicked since the last other change
     .choose(index)           take another proposal; false where there is none
     .addPoint(x, y, positive)
     .question()              what to ask the service for: {points, segmentation}
     .suggested(rle)          its answer
     .beginStroke()           before the first .stroke(x0, y0, x1, y1, radius, paint) of each
     .undo()                  one step back; false where there is none */

import { shapeOf, shapeOfMask } from "./overlay.js";
import { decode, encode } from "./rle.js";

const STEPS = 50;

export class Draft {
  #past = [];
  #mask = null; // only while a brush works on it
  #within = null;
  #rle;
  #base;
  #candidates;
  #original;

  constructor(mask) {
    this.#rle = this.#base = this.#original = mask.segmentation;
    this.#candidates = mask.candidates ?? [];
    this.choice = null;
    this.points = [];
  }

  get rle() {
    if (this.#rle === null) this.#rle = encode(this.#mask, ...this.#original.size);
    return this.#rle;
  }

  get shape() {
    if (this.#rle !== null) return shapeOf(this.#rle);
    return shapeOfMask(this.#mask, ...this.#original.size, this.#within ?? undefined);
  }

  get changed() {
    return this.#rle === null || this.#rle.counts !== this.#original.counts;
  }

  choose(index) {
    const candidate = this.#candidates.find((c) => c.index === index);
    if (!candidate) return false;
    this.#keep();
    this.choice = index;
    this.points = [];
    this.#take(candidate.segmentation);
    return true;
  }

  addPoint(x, y, positive) {
    this.#keep();
    if (this.points.length === 0) this.#base = this.rle;
    this.points = [...this.points, { x, y, positive }];
  }

  question() {
    return { points: this.points, segmentation: this.#base };
  }

  suggested(rle) {
    this.choice = null;
    const base = this.#base;
    this.#take(rle);
    this.#base = base; // the next point is asked for with all before it
  }

  beginStroke() {
    this.#keep();
    const mask = decode(this.rle);
    const box = this.shape.box;
    this.#mask = mask;
    this.#within = box ? [box[0], box[1], box[0] + box[2], box[1] + box[3]] : null;
    this.choice = null;
    this.points = [];
  }

  stroke(x0, y0, x1, y1, radius, paint) {
    const [height, width] = this.#original.size;
    const reach = Math.ceil(radius) + 1;
    const left = Math.max(0, Math.floor(Math.min(x0, x1)) - reach);
    const top = Math.max(0, Math.floor(Math.min(y0, y1)) - reach);
    const right = Math.min(width, Math.ceil(Math.max(x0, x1)) + reach);
    const bottom = Math.min(height, Math.ceil(Math.max(y0, y1)) + reach);
    const [dx, dy] = [x1 - x0, y1 - y0];
    const length = dx * dx + dy * dy;
    for (let x = left; x < right; x++) {
      for (let y = top; y < bottom; y++) {
        const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const [ex, ey] = [px - along * dx, py - along * dy];
        if (ex * ex + ey * ey <= radius * radius) this.#mask[x * height + y] = paint ? 1 : 0;
      }
    }
    const w = this.#within ?? [left, top, right, bottom];
    this.#within = [Math.min(w[0], left), Math.min(w[1], top), Math.max(w[2], right), Math.max(w[3], bottom)];
    this.#rle = null;
  }

  undo() {
    const last = this.#past.pop();
    if (!last) return false;
    this.#take(last.rle);
    [this.choice, this.points, this.#base] = [last.choice, last.points, last.base];
    return true;
  }

  #keep() {
    this.#past.push({ rle: this.rle, choice: this.choice, points: this.points, base: this.#base });
    if (this.#past.length > STEPS) this.#past.shift();
  }

  #take(rle) {
    this.#rle = this.#base = rle;
    this.#mask = this.#within = null;
  }
}
