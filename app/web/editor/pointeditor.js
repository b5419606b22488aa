/* The point editor: the image with its points, the classes, and all images in a strip.

   const editor = new PointEditor(points, {signal, fixed, ranked})
     points       a Points; fixed: images and ids of classes stay (a new version of a data set)
     ranked       resolves to keys of images without points, those to look at first before others
     .element     to be put on the page
     .go(key)     show this image; .select(id) a point of it
     .faults(map) image key -> Set of point ids that are at fault, "" for the image itself */

import { bitmap } from "../core/api.js";
import { byClass } from "../viewer/colours.js";
import { announce, button, fill, h, icon, imageElement, keysDialog, toast } from "../core/dom.js";
import { count } from "../core/format.js";
import { choice, choose } from "../core/store.js";
import { PointTool } from "./pointtool.js";
import { Viewer } from "../viewer/viewer.js";

const KEYS = [
  ["Click", "a point of the chosen class; drag one to move it, right-click to remove it"],
  ["1 … 9", "choose the class"],
  ["Arrows", "move a crosshair (with Shift by one pixel)"],
  ["Enter", "place a point there; on a point: take it up, and set it down"],
  ["[  ]", "the point before, the point after"],
  ["h", "points large, small, hidden"],
  ["c", "give the selected point the chosen class"],
  ["Delete", "remove the selected point"],
  ["Ctrl Z  Ctrl Y", "undo, redo"],
  ["n  p", "next, previous image"],
  ["u", "next image without points"],
  ["+  −  0", "zoom in, out, fit (or the wheel, or two fingers)"],
  ["Space", "held down: drag moves the image"],
  ["?", "this list"],
];

const ORDER = "image-order";
const SIZES = ["large", "small", "hidden"];

export class PointEditor {
  #turn = 0;
  #visited = new Set(); // images without points that were shown already

  constructor(points, { signal, fixed = false, ranked = null } = {}) {
    Object.assign(this, { points, fixed, signal, ranked, chosen: points.classes[0]?.id ?? null, wrong: new Map() });
    this.viewer = new Viewer({ label: "Image. Arrow keys move a crosshair, Enter places a point, numbers choose the class.", signal });
    this.tool = new PointTool(this.viewer, points, {
      category: () => this.chosen,
      onselect: () => this.#showPoints(),
      onstep: (by) => this.step(by),
      onclass: (index) => this.choose(points.classes[index]?.id),
      onbare: () => void this.bare(),
      onsize: () => this.resize(SIZES[(SIZES.indexOf(this.tool.size) + 1) % SIZES.length]),
      announce,
    });
    this.tool.size = SIZES.includes(choice("points")) ? choice("points") : SIZES[0];
    this.viewer.tool = { ...pointers(this.tool), key: (event) => this.#key(event) };
    this.viewer.onview = () => (this.level.textContent = `${Math.round(100 * this.viewer.scale)} %`);
    this.#build();
    points.addEventListener("change", () => this.#refresh(), { signal });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "?" || event.defaultPrevented || event.target.closest("input, select, textarea")) return;
      event.preventDefault();
      help();
    }, { signal });
    this.#refresh();
    if (points.images.length) this.go(points.images[0].key);
  }

  #build() {
    const tool = (name, label, onclick) => button(icon(name), onclick, { class: "quiet icon", "aria-label": label, title: label });
    this.undo = tool("undo", "Undo (Ctrl Z)", () => this.#back("undo"));
    this.redo = tool("redo", "Redo (Ctrl Y)", () => this.#back("redo"));
    this.bin = tool("trash", "Remove the selected point (Delete)", () => this.tool.remove());
    this.name = h("span", { class: "name" });
    this.level = h("span", { class: "number level" });
    this.strip = h("ul", { class: "strip", "aria-label": "Images" });
    this.classes = h("ul", { class: "plain classes", "aria-label": "Classes" });
    this.list = h("ol", { class: "plain points", "aria-label": "Points of this image" });
    this.sum = h("p", { class: "hint" });
    const bar = h("div", { class: "toolbar" },
      tool("back", "Previous image (p)", () => this.step(-1)), tool("next", "Next image (n)", () => this.step(1)),
      tool("target", "Skip to an image without points (u)", () => this.bare()), this.ranked && this.#orders(),
      this.name, h("span", { class: "grow" }), this.undo, this.redo, this.bin,
      tool("zoomout", "Zoom out (−)", () => this.viewer.zoom(0.8)), this.level, tool("zoomin", "Zoom in (+)", () => this.viewer.zoom(1.25)),
      this.sizes = tool("eye", "", () => this.tool.hooks.onsize()),
      tool("fit", "Fit (0)", () => this.viewer.fit()), tool("help", "Keys (?)", help));
    const adding = h("form", { class: "row nowrap", onsubmit: (event) => this.#addClass(event) },
      h("input", { "aria-label": "Name of a new class", placeholder: "New class", maxlength: 100 }),
      h("button", { class: "icon", "aria-label": "Add the class" }, icon("add")));
    this.side = h("div", { class: "side stack" },
      h("section", { class: "card stack" }, h("h2", null, "Classes"), this.classes, adding),
      h("section", { class: "card stack ofimage" }, h("h2", null, "Points here"), this.list, this.sum));
    this.element = h("div", { class: "editor" },
      h("div", { class: "panel stage" }, bar, this.viewer.element, this.strip), this.side);
  }

  #key(event) {
    const letter = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (letter !== "z" && letter !== "y") return false;
      this.#back(letter === "y" || event.shiftKey ? "redo" : "undo");
      return true;
    }
    return this.tool.key(event);
  }

  #back(which) {
    const key = this.points[which]();
    if (key === null) return;
    this.tool.selected = null;
    if (key !== this.tool.shown) this.go(key);
    announce(which === "undo" ? "Undone" : "Done again");
  }

  choose(id) {
    if (id === undefined) return;
    this.chosen = id;
    this.#showClasses();
    announce(`Class ${this.points.classes.find((c) => c.id === id).name}`);
  }

  resize(size) {
    this.tool.size = size;
    choose("points", size);
    announce(`Points ${size}`);
    this.#refresh();
  }

  step(by) {
    const { images } = this.points;
    const position = images.findIndex((image) => image.key === this.tool.shown) + by;
    if (images[position]) this.go(images[position].key);
    else announce(by > 0 ? "This is the last image" : "This is the first image");
  }

  #orders() {
    const choices = [["useful", "most useful first"], ["listed", "as they are listed"]];
    const select = h("select", { class: "small", "aria-label": "Order of the images without points", title: "Order of the images without points", onchange: () => choose(ORDER, select.value) }, choices.map(([value, text]) => h("option", { value }, text)));
    select.value = choice(ORDER) === "listed" ? "listed" : "useful";
    this.orders = select;
    return select;
  }

  /* To the next image without points: by the service's ranking, or as they are listed. Those that were
     passed over come again once all others were shown. */
  async bare() {
    const turn = ++this.#turn;
    let keys = [];
    if (this.orders?.value === "useful") {
      try {
        keys = await this.ranked();
      } catch (error) {
        if (this.signal?.aborted || turn !== this.#turn) return;
        toast(`The images are shown as they are listed: ${error.message}`, "bad");
      }
      if (this.signal?.aborted || turn !== this.#turn) return;
    }
    const listed = this.points.images.map((image) => image.key);
    const here = listed.indexOf(this.tool.shown);
    const order = [...new Set([...keys, ...listed.slice(here + 1), ...listed.slice(0, here)])];
    const open = order.filter((key) => key !== this.tool.shown && listed.includes(key) && this.points.of(key).length === 0);
    if (open.length === 0) return announce("There is no other image without points");
    this.#visited.add(this.tool.shown);
    if (open.every((key) => this.#visited.has(key))) this.#visited.clear();
    await this.go(open.find((key) => !this.#visited.has(key)));
  }

  async go(key) {
    const image = this.points.images.find((entry) => entry.key === key);
    if (!image) return;
    if (this.tool.shown !== key) this.viewer.show(null); // no points over another's image
    this.tool.show(key);
    this.#refresh();
    const position = this.points.images.indexOf(image);
    announce(`${image.name}, image ${position + 1} of ${this.points.images.length}, ${count(this.points.of(key).length, "point")}`);
    this.strip.children[position]?.scrollIntoView({ block: "nearest", inline: "nearest" });
    try {
      const source = image.blob ?? (await bitmap(image.path, { signal: this.signal }));
      if (this.tool.shown === key) await this.viewer.show(source);
    } catch (error) {
      if (this.tool.shown === key && !this.signal?.aborted) toast(`${image.name}: ${error.message}`, "bad");
    }
  }

  select(id) {
    const point = this.points.of(this.tool.shown).find((p) => p.id === id);
    if (!point) return;
    this.tool.select(id);
    this.viewer.reveal(point.x, point.y);
  }

  faults(map) {
    this.wrong = map;
    this.#refresh();
  }

  #refresh() {
    const { images } = this.points;
    if (!images.some((image) => image.key === this.tool.shown)) {
      if (images.length) return void this.go(images[0].key);
      this.tool.show(null);
      this.viewer.show(null);
    }
    if (!this.points.classes.some((c) => c.id === this.chosen)) this.chosen = this.points.classes[0]?.id ?? null;
    const position = images.findIndex((image) => image.key === this.tool.shown);
    this.name.textContent = position < 0 ? "" : `${position + 1} / ${images.length} · ${images[position].name}`;
    this.undo.disabled = !this.points.canUndo;
    this.redo.disabled = !this.points.canRedo;
    this.tool.faults = this.wrong.get(this.tool.shown) ?? new Set();
    this.sizes.title = `Points: ${this.tool.size} (h)`;
    this.sizes.setAttribute("aria-label", this.sizes.title);
    this.#showClasses();
    this.#showStrip();
    this.#showPoints();
    this.viewer.redraw();
  }

  #showClasses() {
    const colours = byClass(this.points.classes);
    fill(this.classes, this.points.classes.map(({ id, name }, index) => {
      const pick = h("button", { type: "button", class: "quiet pick", "aria-pressed": String(id === this.chosen), "aria-label": `Use class ${name}${index < 9 ? `, key ${index + 1}` : ""}`, onclick: () => (this.choose(id), this.viewer.canvas.focus()) }, swatch(colours.get(id).css), index < 9 && h("kbd", null, String(index + 1)));
      const rename = h("input", { value: name, "aria-label": `Name of class ${index + 1}`, maxlength: 100, "data-class": id, "aria-invalid": this.wrong.get("classes")?.has(id) && "true", onchange: (event) => this.points.renameClass(id, event.target.value.trim() || name) });
      const used = this.points.count(id);
      const remove = h("button", { type: "button", class: "quiet icon small", "aria-label": `Remove class ${name}`, disabled: used > 0 || this.points.classes.length < 2, title: used ? "It has points" : "Remove this class", onclick: () => this.points.removeClass(id) }, icon("cross"));
      return h("li", { class: "row nowrap" }, pick, rename, h("span", { class: "number hint" }, String(used)), remove);
    }));
  }

  #addClass(event) {
    event.preventDefault();
    const input = event.target.querySelector("input");
    const name = input.value.trim();
    if (!name) return;
    if (this.points.classes.some((c) => c.name === name)) return toast(`There is a class ${name} already.`, "bad");
    input.value = "";
    this.choose(this.points.addClass(name).id);
    this.viewer.canvas.focus(); // digits choose classes there
  }

  /* The strip is changed, not built anew: it keeps its place, its focus and its images. */
  #showStrip() {
    const { images } = this.points;
    const had = new Map([...this.strip.children].map((node) => [node.dataset.key, node]));
    const nodes = images.map((image, position) => {
      const node = had.get(image.key) ?? this.#thumb(image);
      had.delete(image.key);
      if (this.strip.children[position] !== node) this.strip.insertBefore(node, this.strip.children[position] ?? null);
      return node;
    });
    for (const gone of had.values()) gone.remove();
    nodes.forEach((node, position) => {
      const key = images[position].key;
      const n = this.points.of(key).length;
      const pick = node.firstChild;
      pick.setAttribute("aria-label", `${images[position].name}, ${count(n, "point")}`);
      if (key === this.tool.shown) pick.setAttribute("aria-current", "true");
      else pick.removeAttribute("aria-current");
      node.classList.toggle("wrong", this.wrong.has(key));
      node.querySelector(".tally").textContent = n;
      node.querySelector(".tally").classList.toggle("none", n === 0);
    });
  }

  #thumb(image) {
    const pick = h("button", { type: "button", class: "thumb", title: image.name, onclick: () => this.go(image.key) }, imageElement(image.blob ?? image.path, { class: "asis" }), h("span", { class: "tally number", "aria-hidden": "true" }));
    const away = !this.fixed && h("button", { type: "button", class: "away icon small", "aria-label": `Remove image ${image.name}`, onclick: () => this.points.removeImage(image.key) }, icon("cross"));
    return h("li", { "data-key": image.key }, pick, away);
  }

  #showPoints() {
    const list = this.points.of(this.tool.shown);
    const colours = byClass(this.points.classes);
    const chosen = this.tool.selected;
    this.bin.disabled = !list.some((p) => p.id === chosen);
    fill(this.list, list.slice(0, 300).map((p) => {
      const text = `${colours.get(p.category)?.name ?? "?"} at ${Math.round(p.x)}, ${Math.round(p.y)}`;
      const wrong = this.tool.faults.has(p.id);
      return h("li", null, h("button", { type: "button", class: "quiet small", "aria-pressed": String(p.id === chosen), onclick: () => this.select(p.id) }, swatch(colours.get(p.category)?.css), h("span", null, text), wrong && h("span", { class: "badge", "data-tone": "bad" }, "at fault")));
    }));
    const none = this.points.images.length ? "Click once on each object." : "Add images first.";
    this.sum.textContent = list.length ? `${count(list.length, "point")} here, ${this.points.total.toLocaleString("en")} on all images` : none;
  }
}

export function swatch(css) {
  const node = h("span", { class: "swatch", "aria-hidden": "true" });
  if (css) node.style.setProperty("--swatch", css);
  return node;
}

const pointers = (tool) => ({
  down: (position) => tool.down(position),
  move: (position) => tool.move(position),
  up: (position) => tool.up(position),
  cancel: () => tool.cancel(),
});

function help() {
  return keysDialog("Keys of the point editor", "Those for points work while the image has the focus: click it, or reach it with Tab.", KEYS);
}
