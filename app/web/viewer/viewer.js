/* An image that can be zoomed and panned, with layers drawn over it, and one tool in hand.

   const viewer = new Viewer({label, signal});  root.append(viewer.element)
   viewer.element              a <div class="viewer"> that fills its place; give it a height by CSS
   viewer.canvas               focusable; `label` is its name for screen readers
   await viewer.show(source)   a Blob, ImageBitmap, canvas or <img>; null for nothing. Fits it in. Of
                               several, the one that was asked for last is shown
   viewer.width, height        of the image in pixels; viewer.scale: screen pixels an image's pixel
   viewer.layers               an array of functions (ctx, viewer), drawn in order, in the IMAGE's
                               coordinates (pixel centres at .5). For a line of n screen pixels:
                               ctx.lineWidth = n / viewer.scale. A canvas of the image's size:
                               ctx.drawImage(paint(rle, rgb), 0, 0)
   viewer.redraw()             at the next frame, once for many calls
   viewer.toImage(x, y)        client coordinates (event.clientX) -> [x, y] in the image
   viewer.toScreen(x, y)       the way back
   viewer.zoom(factor, at?)    about a place in client coordinates; default the middle
   viewer.fit()                the whole image; viewer.pan(dx, dy) in screen pixels
   viewer.reveal(x, y)         pan just so far that this place of the image is on screen
   viewer.lookAt([x, y, w, h]) fill the screen with this box of the image, with some air round it;
                               at the image's border it moves aside rather than show what is beyond;
                               it stays so when the place is resized, until it is moved
   viewer.tool                 {down, move, up, cancel, leave, key, wheel}, all optional. Pointer functions get
                               ({x, y, event}) in the image's coordinates. `down` returning true takes
                               the drag; else it pans. `key(event)` returning true takes the key.
   viewer.onview               called after each change of zoom or place

   Without a tool: drag, wheel and pinch move it; + − 0 zoom, arrows pan. Middle button, or Space held
   down, always pans. */

import { decoded } from "./pixels.js";

const MOST = 64; // screen pixels an image's pixel
const STEP = 40;

export class Viewer {
  constructor({ label = "Image", signal } = {}) {
    this.element = document.createElement("div");
    this.element.className = "viewer";
    this.canvas = document.createElement("canvas");
    Object.assign(this.canvas, { tabIndex: 0 });
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", label);
    this.element.append(this.canvas);
    this.layers = [];
    this.tool = null;
    this.onview = null;
    this.source = null;
    [this.width, this.height, this.scale, this.left, this.top] = [0, 0, 1, 0, 0];
    [this._fitted, this._looked] = [true, null];
    this._pointers = new Map();
    this._taken = false;
    this._space = false;
    this._turn = 0;
    const sized = new ResizeObserver(() => this._resize());
    sized.observe(this.element);
    signal?.addEventListener("abort", () => sized.disconnect());
    this._listen();
  }

  async show(source) {
    const turn = ++this._turn;
    const shown = source instanceof Blob ? await decoded(source) : source;
    if (turn !== this._turn) return;
    this.source = shown;
    this.width = this.source?.naturalWidth ?? this.source?.width ?? 0;
    this.height = this.source?.naturalHeight ?? this.source?.height ?? 0;
    this.fit();
  }

  get _size() {
    return [this.element.clientWidth, this.element.clientHeight];
  }

  _resize() {
    const ratio = devicePixelRatio || 1;
    const [w, h] = this._size;
    this.canvas.width = Math.max(1, Math.round(w * ratio));
    this.canvas.height = Math.max(1, Math.round(h * ratio));
    if (this._fitted) this.fit();
    else if (this._looked) this.lookAt(this._looked);
    this._draw();
  }

  fit() {
    const [w, h] = this._size;
    if (!this.width || !w || !h) return this.redraw();
    const pad = Math.min(16, w / 20);
    this.scale = Math.min((w - 2 * pad) / this.width, (h - 2 * pad) / this.height, 8);
    this.left = (w - this.width * this.scale) / 2;
    this.top = (h - this.height * this.scale) / 2;
    [this._fitted, this._looked] = [true, null];
    this._moved();
  }

  zoom(factor, anchor) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = anchor ? [anchor[0] - box.left, anchor[1] - box.top] : [box.width / 2, box.height / 2];
    const least = Math.min(0.05, this.scale);
    const scale = Math.min(MOST, Math.max(least, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    [this._fitted, this._looked] = [false, null];
    this._moved();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    [this._fitted, this._looked] = [false, null];
    this._moved();
  }

  lookAt(box) {
    const [x, y, w, h] = box;
    const [width, height] = this._size;
    const side = Math.max(w, h, 8) * 1.8;
    this.scale = Math.min(MOST, width / side, height / side);
    const placed = (anchor, length, room) => (length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, anchor)));
    this.left = placed(width / 2 - (x + w / 2) * this.scale, this.width * this.scale, width);
    this.top = placed(height / 2 - (y + h / 2) * this.scale, this.height * this.scale, height);
    [this._fitted, this._looked] = [false, box];
    this._moved();
  }

  reveal(x, y) {
    const margin = 24;
    const [w, h] = this._size;
    const [sx, sy] = [x * this.scale + this.left, y * this.scale + this.top];
    const dx = Math.max(0, margin - sx) + Math.min(0, w - margin - sx);
    const dy = Math.max(0, margin - sy) + Math.min(0, h - margin - sy);
    if (dx || dy) this.pan(dx, dy);
  }

  /* Never wholly out of sight. */
  _moved() {
    const [w, h] = this._size;
    const keep = 32;
    this.left = Math.min(w - keep, Math.max(keep - this.width * this.scale, this.left));
    this.top = Math.min(h - keep, Math.max(keep - this.height * this.scale, this.top));
    this.onview?.();
    this.redraw();
  }

  toImage(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    return [(clientX - box.left - this.left) / this.scale, (clientY - box.top - this.top) / this.scale];
  }

  toScreen(x, y) {
    const box = this.canvas.getBoundingClientRect();
    return [x * this.scale + this.left + box.left, y * this.scale + this.top + box.top];
  }

  redraw() {
    this._frame ??= requestAnimationFrame(() => {
      this._frame = null;
      this._draw();
    });
  }

  _draw() {
    const context = this.canvas.getContext("2d");
    const ratio = this.canvas.width / Math.max(1, this.element.clientWidth);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.source) return;
    context.setTransform(this.scale * ratio, 0, 0, this.scale * ratio, this.left * ratio, this.top * ratio);
    context.imageSmoothingEnabled = this.scale < 3;
    context.drawImage(this.source, 0, 0);
    for (const layer of this.layers) {
      context.save();
      layer(context, this);
      context.restore();
    }
  }

  _listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this._down(event));
    canvas.addEventListener("pointermove", (event) => this._move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this._up(event));
    canvas.addEventListener("pointerleave", () => this.tool?.leave?.());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this._wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this._key(event));
    canvas.addEventListener("keyup", (event) => event.key === " " && (this._space = false));
    canvas.addEventListener("blur", () => (this._space = false));
  }

  _at(event) {
    const [x, y] = this.toImage(event.clientX, event.clientY);
    return { x, y, event };
  }

  _down(event) {
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this._pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this._pointers.size > 1) return this._taken && this._cancel(event); // it is a pinch
    const pans = this._space || event.button === 1;
    this._taken = !pans && this.source !== null && this.tool?.down?.(this._at(event)) === true;
    event.preventDefault();
  }

  _cancel(event) {
    this._taken = false;
    this.tool?.cancel?.(this._at(event));
  }

  _move(event) {
    const before = this._pointers.get(event.pointerId);
    if (!before || this._taken) this.tool?.move?.(this._at(event));
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const other = [...this._pointers].find(([id]) => id !== event.pointerId)?.[1];
    this._pointers.set(event.pointerId, now);
    if (this._taken) return;
    if (!other) return this.pan(now[0] - before[0], now[1] - before[1]);
    const apart = (p) => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
    this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    this.zoom(apart(now) / apart(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
  }

  _up(event) {
    if (!this._pointers.delete(event.pointerId)) return;
    if (this._taken && this._pointers.size === 0) {
      this._taken = false;
      this.tool?.up?.(this._at(event));
    }
  }

  _wheel(event) {
    event.preventDefault();
    if (this.tool?.wheel?.(event) === true) return;
    const lines = event.deltaMode === 1 ? 20 : 1;
    this.zoom(Math.exp(-Math.max(-120, Math.min(120, event.deltaY * lines)) / 300), [event.clientX, event.clientY]);
  }

  _key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (this.tool?.key?.(event) === true) event.preventDefault();
      return;
    }
    const actions = {
      "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(0.8), 0: () => this.fit(),
      ArrowLeft: () => this.pan(STEP, 0), ArrowRight: () => this.pan(-STEP, 0),
      ArrowUp: () => this.pan(0, STEP), ArrowDown: () => this.pan(0, -STEP), " ": () => (this._space = true),
    };
    if (this.tool?.key?.(event) !== true) {
      if (!actions[event.key]) return;
      actions[event.key]();
    }
    event.preventDefault();
  }
}
