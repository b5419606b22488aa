/* #/predict: drop an image, see what a model finds in it; ?model=ID chooses the model.

   show(root, {query}, {signal}) */

import { all, request, saveBlob } from "../core/api.js";
import { byClass } from "../viewer/colours.js";
import { announce, button, field, fill, h, icon, problem } from "../core/dom.js";
import { count, short, when } from "../core/format.js";
import { quality } from "../viewer/masks.js";
import { drawShape, objectColour, shapeOf } from "../viewer/overlay.js";
import { decoded } from "../viewer/pixels.js";
import { pickers } from "../core/file_drop.js";
import { Viewer } from "../viewer/viewer.js";

export async function show(root, { query }, { signal }) {
  const choices = await models(signal);
  const lead = h("div", { class: "stack tight" }, h("h1", null, "Predict"), h("p", { class: "lead" }, "What a trained model finds in an image that it has not seen."));
  if (choices.length === 0) return void fill(root, lead, h("p", { class: "card empty" }, "There is no model yet. ", h("a", { href: "#/datasets" }, "Train one"), " first."));
  fill(root, lead, new Predict(choices, query.get("model"), signal).element);
}

/* Models, each under the names that it has as well: [{value, label, model}]. */
async function models(signal) {
  const [unnamed, named] = [[], []];
  for await (const model of all("/models", "models", { params: { limit: 200 }, signal })) unnamed.push(model);
  for await (const alias of all("/models/aliases", "aliases", { signal })) {
    const model = unnamed.find((m) => m.id === alias.model_id);
    if (model) named.push({ value: alias.name, label: `${alias.name} (${model.name || short(model.id)})`, model });
  }
  return [...named, ...unnamed.map((model) => ({ value: model.id, label: `${model.name || short(model.id)}, ${when(model.created_at)}`, model }))];
}

class Predict {
  constructor(choices, wished, signal) {
    Object.assign(this, { choices, signal, file: null, submitted: null, results: [], chosen: null, asking: new AbortController() });
    this.select = h("select", { onchange: () => this.ask() }, choices.map(({ value, label }) => h("option", { value }, label)));
    if (choices.some((k) => k.value === wished)) this.select.value = wished;
    this.score = h("input", { type: "range", min: 0.1, max: 1, step: 0.01, value: 0.3, oninput: () => this.update() });
    this.shown = h("output", { class: "number" });
    const score = field("Confidence threshold", this.score);
    score.querySelector("label").append(" ", this.shown);
    this.viewer = new Viewer({ label: "The image with what was found. Plus and minus zoom, arrows pan", signal });
    this.viewer.layers = [(ctx, viewer) => this.draw(ctx, viewer.scale)];
    this.viewer.tool = { down: (at) => this.pick(at) };
    this.list = h("ul", { class: "plain objects" });
    this.summary = h("p", { class: "hint", role: "status" });
    this.why = h("div");
    this.downloads = h("div", { class: "row" },
      button([icon("download"), "JSON"], () => this.saveJson(), { class: "small" }),
      button([icon("download"), "PNG"], () => this.savePng(), { class: "small" }));
    this.answer = h("div", { class: "split predicting", hidden: true },
      this.viewer.element,
      h("section", { class: "card stack", "aria-label": "What was found" }, this.summary, score, this.downloads, this.list));
    const take = ([file]) => file && this.take(file);
    this.drop = pickers(take, { signal, text: "Drop an image here, or ", accept: "image/*", multiple: false });
    this.element = h("div", { class: "stack" },
      h("div", { class: "modelchoice" }, field("Model", this.select)),
      this.drop,
      this.why, this.answer);
    signal.addEventListener("abort", () => this.asking.abort());
  }

  get model() {
    return this.choices.find((k) => k.value === this.select.value).model;
  }

  get least() {
    return Number(this.score.value);
  }

  get shownOnes() {
    return this.results.filter((result) => result.score >= this.least);
  }

  async take(file) {
    this.file = file;
    await this.ask();
  }

  form({ file, value }, score) {
    const form = new FormData();
    form.append("file", file, file.name);
    form.append("model", value);
    form.append("score", String(score));
    return form;
  }

  async ask() {
    if (!this.file) return;
    this.asking.abort();
    const { signal } = (this.asking = new AbortController());
    const submitted = { file: this.file, value: this.select.value, model: this.model };
    fill(this.why, h("p", { class: "hint", role: "status" }, "Looking at it … the first time a model is asked it is loaded, which takes a few seconds."));
    try {
      const [image, answer] = await Promise.all([
        decoded(submitted.file).catch(() => null),
        request("/predict", { method: "POST", body: this.form(submitted, 0.1), signal }),
      ]);
      const unnamed = await answer.json();
      if (signal.aborted) return;
      this.results = unnamed.map((result, index) => ({ ...result, index }));
      [this.submitted, this.chosen] = [submitted, null]; // what is shown and saved is of this image and model
      this.classes = byClass(submitted.model.categories);
      this.answer.hidden = false;
      this.drop.classList.add("small"); // the image needs the room
      fill(this.why, !image && h("p", { class: "note" }, "Your browser cannot show an image of this kind. Save the PNG to see it."));
      await this.viewer.show(image);
      this.update();
      announce(this.summary.textContent);
    } catch (error) {
      if (signal.aborted) return;
      this.answer.hidden = true; // it was of another image or model
      fill(this.why, problem(error));
    }
  }

  colour(result) {
    return this.classes.size > 1 ? (this.classes.get(result.category_id)?.css ?? objectColour(result.index)) : objectColour(result.index);
  }

  draw(ctx, scale) {
    const shown = this.shownOnes;
    for (const result of [...shown].reverse()) {
      const faint = this.chosen && this.chosen !== result ? { fill: 0.12, line: 1 } : {};
      drawShape(ctx, shapeOf(result.segmentation), this.colour(result), { scale, ...faint });
    }
  }

  pick({ x, y }) {
    const ctx = this.viewer.canvas.getContext("2d");
    ctx.save();
    ctx.resetTransform();
    const hit = this.shownOnes.find((result) => ctx.isPointInPath(shapeOf(result.segmentation).path, x, y, "evenodd"));
    ctx.restore();
    this.chosen = hit ?? null;
    this.update();
    return false;
  }

  update() {
    const shown = this.shownOnes;
    if (!shown.includes(this.chosen)) this.chosen = null;
    this.shown.textContent = quality(this.least);
    this.summary.textContent = shown.length ? `${count(shown.length, "object")} found.` : this.results.length ? "Nothing of so high a score." : "Nothing was found.";
    fill(this.list, shown.map((result) => {
      const swatch = h("span", { class: "swatch" });
      swatch.style.setProperty("--swatch", this.colour(result));
      const choose = () => {
        this.chosen = this.chosen === result ? null : result;
        this.update();
        this.list.querySelectorAll("button")[shown.indexOf(result)]?.focus();
      };
      return h("li", null, h("button", { type: "button", class: "object", "aria-pressed": String(this.chosen === result), onclick: choose },
        swatch, h("span", { class: "grow ellipsis" }, this.classes.get(result.category_id)?.name ?? `class ${result.category_id}`), h("span", { class: "number" }, quality(result.score))));
    }));
    this.viewer.redraw();
  }

  saveJson() {
    const text = JSON.stringify(this.shownOnes.map(({ index, ...result }) => result));
    saveBlob(new Blob([text], { type: "application/json" }), `${this.submitted.file.name}.json`);
  }

  /* The service draws it, so that it is the same as anybody else's. */
  async savePng() {
    const { submitted } = this;
    const answer = await request("/predict", { method: "POST", body: this.form(submitted, this.least), headers: { Accept: "image/png" } });
    saveBlob(await answer.blob(), `${submitted.file.name}.masks.png`);
  }
}
