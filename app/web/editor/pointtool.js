/* Placing points with a pointer or with keys: the tool in the editor's hand, and what it draws.

   new PointTool(viewer, points, {category, onselect, onstep, onbare, onsize, onclass, announce})
     show(key)  another image; .shown its key; .selected: the id of a point or null
     category() the class of new points; onstep(±1) another image; onbare() the next without
     points; onsize() points of another size; onclass(n) the n-th class is chosen; onselect() the selection changed; announce(text)
     is read by screen readers
     .remove()  the selected point
     .size      of points: "large", "small", or "hidden" but for the selected one and those at fault
     .faults    a Set of point ids that are drawn as wrong */

import { byClass } from "../viewer/colours.js";
import { drawShape, shapeOf } from "../viewer/overlay.js";

const REACH = 12; // screen pixels round a point
const STEP = 10;

export class PointTool {
  constructor(viewer, points, hooks) {
    Object.assign(this, { viewer, points, hooks, shown: null, selected: null, cross: null, grabbed: null, faults: new Set() });
    viewer.layers.push((context) => this.#draw(context));
  }

  show(key) {
    Object.assign(this, { shown: key, selected: null, cross: null, grabbed: null, press: null });
  }

  select(id) {
    this.selected = id;
    this.hooks.onselect();
    this.viewer.redraw();
  }

  #near(x, y) {
    const reach = REACH / this.viewer.scale;
    const far = (p) => Math.hypot(p.x - x, p.y - y);
    const found = this.points.of(this.shown).filter((p) => far(p) <= reach);
    return found.sort((a, b) => far(a) - far(b))[0] ?? null;
  }

  #inside(x, y) {
    return x >= 0 && y >= 0 && x < this.viewer.width && y < this.viewer.height;
  }

  #kept(x, y) {
    const within = (v, most) => Math.min(Math.max(v, 0), most - 0.01);
    const round = (v) => Math.floor(v * 100) / 100;
    return [round(within(x, this.viewer.width)), round(within(y, this.viewer.height))];
  }

  #place(x, y) {
    if (!this.#inside(x, y)) return;
    const category = this.hooks.category();
    if (category === null) return this.hooks.announce("Add a class first.");
    const point = this.points.add(this.shown, category, ...this.#kept(x, y));
    this.select(point.id);
    this.#say("placed", point);
  }

  #say(what, point) {
    const name = this.points.classes.find((c) => c.id === point.category)?.name ?? "";
    this.hooks.announce(`${name} ${what} at ${Math.round(point.x)}, ${Math.round(point.y)}. ${this.points.of(this.shown).length} on this image.`);
  }

  remove() {
    const point = this.points.of(this.shown).find((p) => p.id === this.selected);
    if (!point) return;
    this.points.remove(this.shown, point.id);
    this.grabbed = null;
    this.select(null);
    this.#say("removed", point);
  }

  /* With a pointer. A press on a point drags it; elsewhere a click places one, and a drag pans. */
  down({ x, y, event }) {
    this.cross = null;
    const point = this.#near(x, y);
    if (event.button === 2) {
      if (point) {
        this.select(point.id);
        this.remove();
      }
      return true;
    }
    this.press = { point, at: [event.clientX, event.clientY], last: [event.clientX, event.clientY], moved: false };
    if (point) this.select(point.id);
    return true;
  }

  move({ x, y, event }) {
    const { press } = this;
    if (!press) {
      const over = this.#near(x, y) !== null;
      this.viewer.canvas.style.cursor = over ? "grab" : this.#inside(x, y) ? "crosshair" : "default";
      return;
    }
    press.moved ||= Math.hypot(event.clientX - press.at[0], event.clientY - press.at[1]) > 4;
    if (!press.moved) return;
    if (press.point) {
      press.to = this.#kept(x, y);
      this.viewer.redraw();
    } else {
      this.viewer.pan(event.clientX - press.last[0], event.clientY - press.last[1]);
      press.last = [event.clientX, event.clientY];
    }
  }

  up({ x, y }) {
    const { press } = this;
    this.press = null;
    if (!press) return;
    if (press.to) this.#moveTo(press.point, press.to);
    else if (!press.point && !press.moved) this.#place(x, y);
  }

  cancel() {
    this.press = null;
    this.viewer.redraw();
  }

  #moveTo(point, [x, y]) {
    this.points.edit(this.shown, point.id, { x, y });
    this.#say("moved", { ...point, x, y });
  }

  /* With keys: arrows move a crosshair, Enter places a point, or takes one up and sets it down. */
  key(event) {
    const placed = event.key.startsWith("Arrow") || event.key === "Enter";
    if (placed && !this.viewer.source) return true; // its image is still to come
    const step = (event.shiftKey ? 1 : STEP) / (event.shiftKey ? 1 : this.viewer.scale);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) return this.#steer(...moves[event.key]);
    if (/^[1-9]$/.test(event.key)) return this.hooks.onclass(Number(event.key) - 1), true;
    switch (event.key) {
      case "Enter": return this.#enter();
      case "Delete": case "Backspace": return this.remove(), true;
      case "n": case "PageDown": return this.hooks.onstep(1), true;
      case "u": return this.hooks.onbare(), true;
      case "h": return this.hooks.onsize(), true;
      case "p": case "PageUp": return this.hooks.onstep(-1), true;
      case "[": return this.#cycle(-1);
      case "]": return this.#cycle(1);
      case "c": return this.#recolour();
      case "Escape": return this.#escape();
      default: return false;
    }
  }

  #steer(dx, dy) {
    const [x, y] = this.cross ?? [this.viewer.width / 2, this.viewer.height / 2];
    this.cross = this.#kept(this.cross ? x + dx : x, this.cross ? y + dy : y);
    this.viewer.reveal(...this.cross);
    this.viewer.redraw();
    return true;
  }

  #enter() {
    if (!this.cross) return this.#steer(0, 0);
    if (this.grabbed !== null) {
      const point = this.points.of(this.shown).find((p) => p.id === this.grabbed);
      this.grabbed = null;
      if (point) this.#moveTo(point, this.cross);
      return true;
    }
    const point = this.#near(...this.cross);
    if (point) {
      this.grabbed = point.id;
      this.select(point.id);
      this.#say("taken up: the arrows move it, Enter sets it down", point);
    } else this.#place(...this.cross);
    return true;
  }

  #cycle(by) {
    const list = this.points.of(this.shown);
    if (!list.length) return true;
    const at = list.findIndex((p) => p.id === this.selected);
    const point = list[(at < 0 ? (by > 0 ? 0 : list.length - 1) : at + by + list.length) % list.length];
    this.cross = [point.x, point.y];
    this.viewer.reveal(point.x, point.y);
    this.select(point.id);
    this.#say("selected", point);
    return true;
  }

  #recolour() {
    const category = this.hooks.category();
    const point = this.points.of(this.shown).find((p) => p.id === this.selected);
    if (!point || category === null) return true;
    this.points.edit(this.shown, point.id, { category });
    this.#say("is its class now", { ...point, category });
    return true;
  }

  #escape() {
    this.grabbed = null;
    this.cross = null;
    this.select(null);
    return true;
  }

  #draw(context) {
    const { viewer } = this;
    const one = 1 / viewer.scale;
    const classes = byClass(this.points.classes);
    for (const { mask, category } of this.points.of(this.shown)) {
      if (mask) drawShape(context, shapeOf(mask), classes.get(category)?.css ?? "#888", { scale: viewer.scale, fill: 0.2, line: 1.5 });
    }
    for (const point of this.points.of(this.shown)) {
      const dragged = this.press?.to && this.press.point.id === point.id;
      const [x, y] = dragged ? this.press.to : this.grabbed === point.id ? this.cross : [point.x, point.y];
      const chosen = point.id === this.selected;
      if (chosen || this.faults.has(point.id)) {
        ring(context, x, y, 12 * one, 3 * one, this.faults.has(point.id) ? "#e11d48" : "#ffffff");
        ring(context, x, y, 14 * one, 1.5 * one, "#000000");
      }
      if (this.size === "hidden" && !chosen && !this.faults.has(point.id)) continue;
      const radius = (this.size === "large" ? 6 : 2.5) * one;
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fillStyle = classes.get(point.category)?.css ?? "#888";
      context.fill();
      if (this.size === "large") ring(context, x, y, radius, 2 * one, "#ffffff");
      ring(context, x, y, radius + 1.5 * one, one, "rgb(0 0 0 / 0.7)");
    }
    if (this.cross) crosshair(context, ...this.cross, viewer);
  }
}

function ring(context, x, y, radius, width, style) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.lineWidth = width;
  context.strokeStyle = style;
  context.stroke();
}

function crosshair(context, x, y, { scale, width, height }) {
  for (const [size, style] of [[3, "rgb(0 0 0 / 0.75)"], [1.25, "#ffffff"]]) {
    context.lineWidth = size / scale;
    context.strokeStyle = style;
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(width, y);
    context.moveTo(x, 0);
    context.lineTo(x, height);
    context.stroke();
  }
}
