/* One photograph of a job's results, large, in a dialog, with layers that can be switched.

   openLarge({job, dataset, classes, names, images, index, params, colours, signal})
       images: ids of those that can be gone through; params: the filter of the masks;
       colours(mask, index): css of one
   Keys: ← → other images, ↑ ↓ other objects, 1 to 5 the layers, 0 the whole image, Esc closes.
   Shift and an arrow pans. */

import { announce, button, dialog, fill, h, icon, problem } from "../core/dom.js";
import { badge, className, ofImage, quality } from "./masks.js";
import { drawPoint, drawShape, shapeOf } from "./overlay.js";
import { photo } from "./image_cache.js";
import { Viewer } from "./viewer.js";

const LAYERS = [
  ["delivered", "Delivered", "the masks as they stand"],
  ["point", "Points", "what was clicked"],
  ["proposals", "Proposals", "the best of the chosen object's bag"],
  ["picked", "Picked", "the proposal before refinement"],
  ["refined", "Refined", "after refinement by affinity"],
];

export function openLarge(place) {
  const stop = new AbortController();
  place.signal.addEventListener("abort", () => stop.abort());
  return dialog("Image", (close) => {
    place.signal.addEventListener("abort", () => close());
    return new Large(place, stop.signal).element;
  }).finally(() => stop.abort());
}

class Large {
  constructor(place, signal) {
    Object.assign(this, place, { signal, masks: [], chosen: null });
    this.on = { delivered: true, point: true, proposals: false, picked: false, refined: false };
    this.viewer = new Viewer({ label: "Image. Arrows left and right go to other images, up and down to other objects", signal });
    this.viewer.layers = [(ctx, viewer) => this.draw(ctx, viewer.scale)];
    this.viewer.tool = { key: (event) => this.key(event), down: (at) => this.pick(at) };
    this.list = h("ul", { class: "plain stack tight objects", "aria-label": "Objects" });
    this.facts = h("div", { class: "stack tight" });
    this.title = h("p", { class: "ellipsis grow title", role: "status" });
    this.toggles = LAYERS.map(([name, label, hint], i) => {
      const box = h("input", { type: "checkbox", checked: this.on[name], onchange: () => this.toggle(name, box.checked) });
      return h("label", { class: "row nowrap", title: hint }, box, h("span", { class: `layer ${name}` }), label, h("kbd", { "aria-hidden": "true" }, i + 1));
    });
    const step = (label, by, drawing) => button(icon(drawing), () => this.step(by), { class: "icon", "aria-label": label });
    this.element = h("div", { class: "lightbox" },
      h("div", { class: "row nowrap" }, step("Image before", -1, "back"), this.title, step("Next image", 1, "next")),
      this.viewer.element,
      h("div", { class: "aside stack" },
        h("fieldset", { class: "row layers" }, h("legend", null, "Layers"), this.toggles), this.facts, this.list));
    this.viewer.canvas.setAttribute("autofocus", "");
    setTimeout(() => {
      this.element.closest("dialog")?.addEventListener("keydown", (event) => this.outside(event));
      this.load();
    }); // once it is on the page
  }

  async load() {
    const id = this.images[this.index];
    const name = this.names.get(id) ?? `image ${id}`;
    this.title.textContent = `${name} (${this.index + 1} of ${this.images.length})`;
    [this.masks, this.chosen] = [[], null]; // those of the image before are not of this one
    this.viewer.show(null);
    this.update();
    try {
      const [image, masks] = await Promise.all([photo(this.dataset.id, id), ofImage(this.job.id, id, this.params, this.signal)]);
      if (id !== this.images[this.index]) return;
      this.masks = masks;
      await this.viewer.show(image);
      this.update();
    } catch (error) {
      if (!this.signal.aborted && id === this.images[this.index]) fill(this.list, h("li", null, problem(error)));
    }
  }

  step(by) {
    const next = this.index + by;
    if (next < 0 || next >= this.images.length) return announce(by > 0 ? "This is the last image" : "This is the first image");
    this.index = next;
    this.load();
  }

  choose(mask, look = true) {
    this.chosen = mask;
    const box = mask && shapeOf(mask.segmentation).box;
    if (box && look) this.viewer.lookAt([box[0] - box[2] / 2, box[1] - box[3] / 2, 2 * box[2], 2 * box[3]]);
    this.update();
  }

  toggle(name, on) {
    this.on[name] = on;
    const shownOfOne = ["proposals", "picked", "refined"].includes(name);
    if (on && shownOfOne && !this.chosen && this.masks.length) this.choose(this.masks[0], false);
    this.viewer.redraw();
  }

  pick({ x, y }) {
    const ctx = this.viewer.canvas.getContext("2d");
    ctx.save();
    ctx.resetTransform();
    const hit = this.masks.filter((mask) => ctx.isPointInPath(shapeOf(mask.segmentation).path, x, y, "evenodd"));
    ctx.restore();
    if (hit.length) this.choose(hit[0], false);
    return false; // and the drag pans
  }

  draw(ctx, scale) {
    const of = this.chosen;
    this.masks.forEach((mask, i) => {
      const faint = of && of !== mask ? { fill: 0.12, line: 1 } : {};
      if (this.on.delivered) drawShape(ctx, shapeOf(mask.segmentation), this.colours(mask, i), { scale, dashed: mask.status === "rejected", ...faint });
    });
    if (of && this.on.proposals) for (const candidate of [...(of.candidates ?? [])].reverse()) drawShape(ctx, shapeOf(candidate.segmentation), "#f5d90a", { scale, fill: 0.08, line: 1.25, dashed: true });
    if (of?.selected && this.on.picked) drawShape(ctx, shapeOf(of.selected), "#ff8a3d", { scale, fill: 0.16 });
    if (of?.refined && this.on.refined) drawShape(ctx, shapeOf(of.refined), "#ff5fd2", { scale, fill: 0.16 });
    if (this.on.point) for (const mask of this.masks) drawPoint(ctx, ...mask.point, { scale, plain: true });
  }

  update() {
    const rows = this.masks.map((mask, i) => {
      const swatch = h("span", { class: "swatch" });
      swatch.style.setProperty("--swatch", this.colours(mask, i));
      return h("li", null, h("button", { type: "button", class: "object", "aria-pressed": String(mask === this.chosen), onclick: () => this.choose(mask) },
        swatch, h("span", { class: "grow ellipsis" }, `${className(this.classes, mask)} ${mask.id}`), mask.status === "open" ? null : badge(mask), h("span", { class: "number" }, quality(mask.quality))));
    });
    fill(this.list, rows);
    this.list.querySelector('[aria-pressed="true"]')?.scrollIntoView({ block: "nearest" });
    fill(this.facts, this.chosen && this.about(this.chosen));
    this.viewer.redraw();
  }

  about(mask) {
    const features = Object.entries(mask.doubts ?? {}).filter(([, value]) => typeof value === "number");
    return [
      h("dl", { class: "facts" },
        h("dt", null, "Quality"), h("dd", { class: "number" }, quality(mask.quality)),
        h("dt", null, "Source"), h("dd", null, mask.source),
        features.map(([name, value]) => [h("dt", null, name.replaceAll("_", " ")), h("dd", { class: "number" }, quality(value))])),
      h("a", { class: "button small", href: `#/jobs/${this.job.id}/review?mask=${encodeURIComponent(mask.mask_id)}` }, "Review this one"),
    ];
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return false;
    const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const among = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const layer = LAYERS[Number(event.key) - 1]?.[0];
    if (along) this.step(along);
    else if (among && this.masks.length) this.choose(this.masks[(this.masks.indexOf(this.chosen) + among + this.masks.length) % this.masks.length]);
    else if (layer) {
      const box = this.toggles[Number(event.key) - 1].querySelector("input");
      box.checked = !box.checked;
      this.toggle(layer, box.checked);
    } else return false;
    return true;
  }

  /* The same keys wherever the focus is; the viewer's canvas asks by itself. */
  outside(event) {
    if (event.target !== this.viewer.canvas && event.target.type !== "checkbox" && this.key(event)) event.preventDefault();
  }
}
