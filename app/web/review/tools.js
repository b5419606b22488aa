/* The hand of a review: points that ask for another mask, and a brush, by pointer and by keys.

   new Tools(viewer, {ask, onchange, onmessage})
       ask(draft, signal)        the service's suggestion for this draft's question: an RLE
       onchange()                the draft or the tool is another; onmessage(text) for people
     .take(draft)                the draft to work on (draft.js), null for none. What was asked for the one
                                 before is taken back, but for one that is being saved (frozen)
     .mode                       "" (move the image), "positive", "negative", "paint", "erase"
     .set(mode)                  take a tool in hand; the same again lays it down
     .radius                     of the brush, pixels of the image; .resize(by) changes it
     .busy                       whether a suggestion is on its way
     .undo()                     a step of the draft; false where there is none
     .answered(draft)            resolves once no suggestion for it is on its way: true where every click
                                 of it is in its mask, false where the service had no answer
     .key(event)                 true where a tool took it: arrows move the crosshair (Shift: far),
                                 Space sets a point or a dab, [ ] size, Esc lays the tool down */

import { drawPoint } from "../viewer/overlay.js";

const WAIT = 70; // milliseconds after a click before the service is asked
const BRUSHES = ["paint", "erase"];

export class Tools {
  #pending = new WeakMap(); // draft -> {stop, answer}: the question that is on its way
  #last = null;
  #shown = null;

  constructor(viewer, { ask, onchange, onmessage }) {
    Object.assign(this, { viewer, ask, onchange, onmessage, draft: null, mode: "", radius: 6, cross: null });
    viewer.tool = {
      down: (point) => this.#down(point),
      move: (point) => this.#move(point),
      up: (point) => this.#up(point),
      cancel: () => this.#cancel(),
      leave: () => this.#hover(null),
      key: (event) => this.onkey?.(event) ?? false,
    };
  }

  take(draft) {
    if (!this.draft?.frozen) this.#stop(this.draft);
    [this.draft, this.cross, this.#last] = [draft, null, null];
  }

  set(mode) {
    this.mode = this.mode === mode ? "" : mode;
    this.cross = null;
    this.viewer.element.dataset.tool = this.mode;
    this.onchange();
  }

  resize(by) {
    this.radius = Math.max(0.5, Math.min(200, Math.round(2 * (this.radius + by * Math.max(1, this.radius / 6))) / 2));
    this.onmessage(`Brush of ${2 * this.radius} pixels`);
    this.onchange();
  }

  undo() {
    if (!this.#free) return false;
    this.#stop(this.draft);
    this.#last = null;
    const undone = this.draft.undo();
    if (this.draft.pending) this.#suggest(); // its mask has not come yet
    this.onchange();
    return undone;
  }

  get busy() {
    return this.#pending.has(this.draft);
  }

  async answered(draft) {
    return (await this.#pending.get(draft)?.answer) ?? true;
  }

  /* Whether there is something to be changed: on its image, and not while it is being saved. */
  get #free() {
    return this.draft !== null && !this.draft.frozen && this.viewer.source !== null;
  }

  get #brush() {
    return BRUSHES.includes(this.mode);
  }

  #down({ x, y, event }) {
    this.cross = null;
    if (!this.mode || !this.#free) return false;
    this.#last = [x, y];
    if (this.#brush) {
      this.draft.beginStroke();
      this.erasing = (this.mode === "erase") !== (event.button === 2 || event.shiftKey);
      this.#dab(x, y);
    }
    return true;
  }

  #move({ x, y }) {
    this.#hover([x, y]);
    if (!this.#last || !this.#brush || !this.#free) return;
    this.draft.stroke(...this.#last, x, y, this.radius, !this.erasing);
    this.#last = [x, y];
    this.viewer.redraw();
  }

  #up({ event }) {
    const from = this.#last;
    this.#last = null;
    if (!from || this.#brush) return this.onchange();
    this.#point(...from, (this.mode === "positive") !== (event.button === 2 || event.shiftKey));
  }

  #cancel() {
    if (this.#last && this.#brush && this.#free) this.draft.undo(); // it became a pinch
    this.#last = null;
    this.onchange();
  }

  #hover(point) {
    this.#shown = point;
    if (this.#brush) this.viewer.redraw();
  }

  #dab(x, y) {
    this.draft.stroke(x, y, x, y, this.radius, !this.erasing);
    this.onchange();
  }

  #point(x, y, positive) {
    if (!this.#free) return;
    const { width, height } = this.viewer;
    if (x < 0 || y < 0 || x >= width || y >= height) return this.onmessage("That is outside of the image");
    this.draft.addPoint(x, y, positive);
    this.#suggest();
    this.onchange();
  }

  /* The latest question wins: those before it are taken back. */
  #suggest() {
    const { draft } = this;
    this.#stop(draft);
    const stop = new AbortController();
    this.#pending.set(draft, { stop, answer: this.#answer(draft, stop.signal) });
  }

  async #answer(draft, signal) {
    try {
      await new Promise((resolve) => setTimeout(resolve, WAIT));
      if (signal.aborted) return false;
      const rle = await this.ask(draft, signal);
      if (signal.aborted) return false;
      this.#pending.delete(draft);
      draft.suggested(rle);
      this.onmessage("The mask has changed");
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      this.#pending.delete(draft);
      draft.refused();
      this.onmessage(`No mask for this point: ${error.message}`, "bad");
      return false;
    } finally {
      if (!signal.aborted) this.onchange();
    }
  }

  #stop(draft) {
    this.#pending.get(draft)?.stop.abort();
    this.#pending.delete(draft);
  }

  key(event) {
    if (event.key === "[" || event.key === "]") {
      this.resize(event.key === "]" ? 1 : -1);
      return true;
    }
    if (!this.mode || !this.draft) return false;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way) this.#steer(way, event.shiftKey ? 8 : 1);
    else if (event.key === " ") this.#press();
    else if (event.key === "Escape") this.set(this.mode);
    else return false;
    return true;
  }

  #middle() {
    const { canvas } = this.viewer;
    const box = canvas.getBoundingClientRect();
    return this.viewer.toImage(box.left + box.width / 2, box.top + box.height / 2);
  }

  #steer([dx, dy], far) {
    if (!this.viewer.source) return;
    const step = Math.max(0.5, 6 / this.viewer.scale) * far;
    const [x, y] = this.cross ?? this.#middle();
    const within = (value, most) => Math.max(0.5, Math.min(most - 0.5, value));
    this.cross = [within(x + dx * step, this.viewer.width), within(y + dy * step, this.viewer.height)];
    this.viewer.reveal(...this.cross);
    this.viewer.redraw();
  }

  #press() {
    if (!this.#free) return;
    this.cross ??= this.#middle();
    if (!this.#brush) return this.#point(...this.cross, this.mode === "positive");
    this.draft.beginStroke();
    this.erasing = this.mode === "erase";
    this.#dab(...this.cross);
  }

  /* What the tools show over the image: points, the crosshair, the size of the brush. */
  draw(ctx, scale) {
    for (const { x, y, positive } of this.draft?.points ?? []) drawPoint(ctx, x, y, { scale, positive, colour: positive ? "#6ddc9a" : "#ff9a91" });
    const point = this.cross ?? (this.#brush ? this.#shown : null);
    if (!point) return;
    ctx.beginPath();
    if (this.#brush) ctx.arc(...point, this.radius, 0, 2 * Math.PI);
    if (this.cross) {
      const arm = 11 / scale;
      ctx.moveTo(point[0] - arm, point[1]);
      ctx.lineTo(point[0] + arm, point[1]);
      ctx.moveTo(point[0], point[1] - arm);
      ctx.lineTo(point[0], point[1] + arm);
    }
    for (const [colour, width] of [["rgb(0 0 0 / 75%)", 3.5], ["#ffffff", 1.5]]) {
      [ctx.strokeStyle, ctx.lineWidth] = [colour, width / scale];
      ctx.stroke();
    }
  }
}
