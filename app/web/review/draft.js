/* The mask on the table in the review: what may be done to it, and undone. Knows no DOM.

   new Draft(mask, edited)    of a mask as the review gives it: {segmentation, candidates, …}. `edited`:
                              a draft of an older version of it; undo gives back what was made of that
     .mask                    that mask: its id and the revision that is drawn on
     .frozen                  true while it is being saved: whoever edits it asks for this first
     .shape                   to be drawn (overlay.js), worked out when it is asked for
     .rle                     as it stands, a COCO RLE
     .changed                 whether it differs from the mask
     .unsaved                 whether anything would be lost with it: changes, clicks without an answer,
                              or what was made of an older version
     .choice                  index of the candidate it is, untouched; null otherwise
     .points                  [{x, y, positive}] clicked since the last other change
     .pending                 whether the mask for these points is still to come
     .choose(index)           take another proposal; false where there is none
     .addPoint(x, y, positive)
     .question()              what to ask the service for: {points, segmentation}
     .suggested(rle)          its answer; strokes that were made while it was awaited are made on it anew
     .refused()               there is no answer: the points are taken back, later strokes stay
     .beginStroke()           before the first .stroke(x0, y0, x1, y1, radius, paint) of each
     .undo()                  one step back; false where there is none */

import { shapeOf, shapeOfMask } from "../viewer/overlay.js";
import { decode, encode } from "../viewer/rle.js";

const STEPS = 50;

export class Draft {
  #past = [];
  #mask = null; // only while a brush works on it
  #within = null;
  #rle;
  #base;
  #strokes = []; // those made since the points were clicked
  #answered = 0; // so many of the points are in the mask
  #older = false;

  constructor(mask, edited = null) {
    Object.assign(this, { mask, frozen: false, choice: null, points: [] });
    this.#rle = this.#base = mask.segmentation;
    if (!edited) return;
    this.#past = [{ rle: edited.rle, base: edited.rle, choice: null, points: [], answered: 0, strokes: [] }];
    this.#older = true;
  }

  get rle() {
    if (this.#rle === null) this.#rle = encode(this.#mask, ...this.mask.segmentation.size);
    return this.#rle;
  }

  get shape() {
    if (this.#rle !== null) return shapeOf(this.#rle);
    return shapeOfMask(this.#mask, ...this.mask.segmentation.size, this.#within ?? undefined);
  }

  get changed() {
    return this.#rle === null || this.#rle.counts !== this.mask.segmentation.counts;
  }

  get unsaved() {
    return this.changed || this.pending || this.#older;
  }

  get pending() {
    return this.points.length > this.#answered;
  }

  choose(index) {
    const candidate = (this.mask.candidates ?? []).find((c) => c.index === index);
    if (!candidate) return false;
    this.#remember();
    this.choice = index;
    this.#take(candidate.segmentation);
    return true;
  }

  addPoint(x, y, positive) {
    this.#remember();
    if (this.points.length === 0) this.#base = this.rle;
    this.points = [...this.points, { x, y, positive }];
  }

  question() {
    return { points: this.points, segmentation: this.#base };
  }

  /* The steps back that lead to these points get the answer too. */
  suggested(rle) {
    const { points } = this;
    for (const step of this.#past) {
      if (step.points !== points) continue;
      Object.assign(step, { rle: this.#replayed(rle, step.strokes), choice: null, answered: points.length });
      if (step.strokes.length) Object.assign(step, { points: [], base: step.rle, answered: 0, strokes: [] });
    }
    this.choice = null;
    if (this.#strokes.length) {
      this.#begin(rle);
      const strokes = this.#strokes;
      [this.points, this.#answered, this.#strokes] = [[], 0, []];
      for (const stroke of strokes) this.stroke(...stroke);
    } else {
      [this.#rle, this.#mask, this.#within] = [rle, null, null];
      this.#answered = points.length; // the base stays: the next point is asked for with all before it
    }
  }

  refused() {
    this.#past = this.#past.filter((step) => step.points.length <= step.answered || step.strokes.length);
    if (this.#strokes.length === 0) return void (this.pending && this.undo());
    for (const step of this.#past) if (step.strokes.length) Object.assign(step, { points: [], answered: 0, base: step.rle, strokes: [] });
    [this.points, this.#answered, this.#strokes] = [[], 0, []];
  }

  beginStroke() {
    this.#remember();
    if (this.pending) this.#strokes = [...this.#strokes];
    else [this.points, this.#answered, this.#strokes] = [[], 0, []];
    this.choice = null;
    this.#begin(this.rle);
  }

  stroke(x0, y0, x1, y1, radius, paint) {
    if (this.pending) this.#strokes.push([x0, y0, x1, y1, radius, paint]);
    const [height, width] = this.mask.segmentation.size;
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
    this.#older &&= this.#past.length > 0; // the first step back may be what was made of an older version
    this.#take(last.rle);
    [this.choice, this.points, this.#base, this.#answered, this.#strokes] = [last.choice, last.points, last.base, last.answered, last.strokes];
    return true;
  }

  #remember() {
    this.#past.push({ rle: this.rle, choice: this.choice, points: this.points, base: this.#base, answered: this.#answered, strokes: this.#strokes });
    if (this.#past.length > STEPS) this.#past.shift();
  }

  #take(rle) {
    this.#rle = this.#base = rle;
    this.#mask = this.#within = null;
    [this.points, this.#answered, this.#strokes] = [[], 0, []];
  }

  #begin(rle) {
    const { box } = shapeOf(rle);
    this.#mask = decode(rle);
    this.#within = box ? [box[0], box[1], box[0] + box[2], box[1] + box[3]] : null;
    this.#rle = rle;
  }

  #replayed(rle, strokes) {
    if (strokes.length === 0) return rle;
    const draft = new Draft({ segmentation: rle });
    draft.beginStroke();
    for (const stroke of strokes) draft.stroke(...stroke);
    return draft.rle;
  }
}
