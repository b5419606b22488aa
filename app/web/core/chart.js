/* Curves of losses over steps, in SVG. They are read by eye here, and as figures in `table`.

   const chart = new Curves("Losses by step");  root.append(chart.element)
   chart.add(step, {name: value})   a value that is no finite number leaves a gap
   Each curve is drawn against its own greatest value, so that terms of any size can be followed;
   the figures beside the names are what they are now. */

import { colour, css } from "../viewer/colours.js";
import { fill, h, s } from "./dom.js";

const [WIDTH, HEIGHT, PAD] = [640, 200, 8];
const MOST = 400; // points a curve; beyond, every other one goes

export class Curves {
  constructor(label) {
    this.curves = new Map();
    this.hidden = new Set();
    this.svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "plot", role: "img", "aria-label": label });
    this.legend = h("ul", { class: "plain legend" });
    this.span = h("small", { class: "number" });
    this.element = h("figure", { class: "stack tight", hidden: true }, h("figcaption", { class: "stack tight" }, h("h3", null, label), this.span), this.svg, this.legend);
  }

  add(step, losses) {
    for (const [name, value] of Object.entries(losses ?? {})) {
      const curve = this.curves.get(name) ?? [];
      this.curves.set(name, curve);
      if (curve.length && step < curve.at(-1)[0]) curve.splice(curve.findIndex(([at]) => at >= step)); // taken up again
      curve.push([step, Number.isFinite(value) ? value : null]);
      if (curve.length > MOST) this.curves.set(name, curve.filter((_, i) => i % 2 === 0 || i === curve.length - 1));
    }
    this.#soon();
  }

  /* Events come in bursts when they are replayed. */
  #soon() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.#draw();
    });
  }

  #draw() {
    const names = [...this.curves.keys()].sort();
    const all = [...this.curves.values()].flat();
    this.element.hidden = all.length < 2;
    if (this.element.hidden) return;
    const [first, last] = [Math.min(...all.map(([at]) => at)), Math.max(...all.map(([at]) => at))];
    this.span.textContent = `steps ${first.toLocaleString("en")} to ${last.toLocaleString("en")}; each curve on its own scale, 0 at the bottom`;
    const x = (step) => PAD + ((step - first) / Math.max(1, last - first)) * (WIDTH - 2 * PAD);
    const lines = [0.25, 0.5, 0.75, 1].map((part) => s("line", { x1: PAD, x2: WIDTH - PAD, y1: HEIGHT * part - (part === 1 ? PAD : 0), y2: HEIGHT * part - (part === 1 ? PAD : 0), class: "guide" }));
    const paths = names.map((name, index) => {
      if (this.hidden.has(name)) return null;
      const curve = this.curves.get(name);
      const greatest = Math.max(1e-12, ...curve.map(([, value]) => Math.abs(value ?? 0)));
      const y = (value) => HEIGHT - PAD - (Math.max(0, value) / greatest) * (HEIGHT - 2 * PAD);
      let pen = "M";
      const d = curve.map(([step, value]) => {
        if (value === null) return (pen = "M"), "";
        const part = `${pen}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
        return part;
      });
      const path = s("path", { d: d.join(""), class: "curve", "vector-effect": "non-scaling-stroke" });
      path.style.stroke = css(colour(index));
      return path;
    });
    fill(this.svg, lines, paths);
    this.#name(names);
  }

  #name(names) {
    if (this.named !== names.join()) {
      this.named = names.join();
      this.values = new Map();
      fill(this.legend, names.map((name, index) => {
        const mark = h("span", { class: "swatch", "aria-hidden": "true" });
        mark.style.setProperty("--swatch", css(colour(index)));
        const value = h("span", { class: "number hint" });
        this.values.set(name, value);
        const toggle = (event) => {
          if (!this.hidden.delete(name)) this.hidden.add(name);
          event.currentTarget.setAttribute("aria-pressed", String(!this.hidden.has(name)));
          this.#soon();
        };
        return h("li", null, h("button", { type: "button", class: "quiet small", "aria-pressed": "true", title: `Show or hide ${name}`, onclick: toggle }, mark, name, value));
      }));
    }
    for (const name of names) {
      const now = this.curves.get(name).at(-1)[1];
      this.values.get(name).textContent = now === null ? "–" : now.toPrecision(3);
    }
  }
}
