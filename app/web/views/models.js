/* #/models: what was trained, how good it is, its names (aliases), and its files.

   show(root, {}, {signal}) */

import { all, ApiError, get, post, put, remove, save } from "../core/api.js";
import { announce, button, confirm, fill, h, icon, once, imageElement, toast } from "../core/dom.js";
import { bytes, reference, short, when } from "../core/format.js";

const FIGURES = [["AP", "AP"], ["AP50", "AP50"], ["AP75", "AP75"]];

export async function show(root, _, { signal }) {
  const aliases = new Map();
  const cards = h("ul", { class: "plain stack" });
  const more = h("div", { class: "row end" });
  fill(root, h("div", { class: "stack tight" }, h("h1", null, "Models"), h("p", { class: "lead" }, "Each training leaves one, and you can import others; a model never changes. A name (an alias) can be moved from one to another, and stands wherever a model is asked for.")), cards, more);
  const updates = [];
  let turns = 0;
  const readAliases = async () => {
    const turn = ++turns;
    const now = [];
    for await (const alias of all("/models/aliases", "aliases", { signal })) now.push(alias);
    if (turn !== turns) return; // a later answer knows more
    aliases.clear();
    for (const alias of now) aliases.set(alias.name, alias);
    for (const update of updates) update();
  };

  async function next(cursor) {
    const page = await get("/models", { params: { limit: 20, cursor }, signal });
    for (const model of page.models) {
      const { element, update } = card(model, aliases, readAliases, signal);
      updates.push(update);
      cards.append(element);
    }
    if (cards.children.length === 0) fill(cards, h("li", { class: "card empty" }, "There is no model yet. ", h("a", { href: "#/datasets" }, "Train one"), "."));
    fill(more, page.next && button("Show more", () => next(page.next)));
  }

  await next(null);
  await readAliases().catch((error) => !signal.aborted && toast(error.message, "bad"));
}

function card(model, aliases, readAliases, signal) {
  const named = h("ul", { class: "row plain names" });
  const imported = model.dataset_id === null;
  // Images that it was not trained on say more than those that it was.
  const { validation } = model;
  const source = validation?.AP === undefined ? model.metrics : validation;
  const figures = FIGURES.filter(([name]) => typeof source?.[name] === "number");
  const curves = h("details", { ontoggle: () => curves.open && curves.children.length === 1 && curves.append(imageElement(`/models/${model.id}/curves.png`, { class: "curves", alt: "Precision against recall, overall and by class" })) },
    h("summary", null, "Precision and recall"));
  const element = h("li", { class: "card stack" },
    h("div", { class: "row spread" },
      h("div", { class: "stack tight" }, h("h2", null, model.name || short(model.id)), h("p", { class: "hint" }, `${when(model.created_at)} · ${model.categories.map((c) => c.name).join(", ")} · `, h("code", null, model.id))),
      h("div", { class: "row" }, h("a", { class: "button primary small", href: `#/predict?model=${model.id}` }, icon("image"), "Predict"), h("a", { class: "button small", href: `#/jobs/${model.job_id}` }, imported ? "Its import" : "Its training"), imported && button("Delete", () => take(model, element), { class: "small" }))),
    figures.length > 0 && h("dl", { class: "tiles small" }, figures.map(([name, label]) => h("div", { class: "figure" }, h("dt", null, label), h("dd", { class: "number" }, source[name].toFixed(3))))),
    figures.length > 0 && h("p", { class: "hint" }, source === validation ? `On ${validation.on}, against ${reference(validation.against)}.` : "On the images of its training, against ground truth."),
    model.metrics ? curves : figures.length === 0 && h("p", { class: "hint" }, imported ? "No metrics: it was imported." : "No metrics: its training had no ground truth."),
    h("div", { class: "row" }, downloads(model, signal)),
    h("div", { class: "row" }, named, naming(model, aliases, readAliases)));
  const update = () => fill(named, [...aliases.values()].filter((a) => a.model_id === model.id).map((alias) => tag(alias, readAliases)));
  return { element, update };
}

async function take(model, element) {
  if (!(await confirm(`Delete ${model.name || short(model.id)}?`, "The model and its predictions are removed. This cannot be undone.", "Delete"))) return;
  try {
    await remove(`/models/${model.id}`);
  } catch (error) {
    toast(error.message, "bad");
    return;
  }
  element.remove();
  announce("The model is deleted");
}

function downloads(model, signal) {
  const file = (label, path, suffix) => button([icon("download"), label], () => save(`/models/${model.id}/${path}`, `model-${model.id}.${suffix}`), { class: "small" });
  const onnx = button([icon("download"), "ONNX"], async () => {
    await haveOnnx(model, signal);
    await save(`/models/${model.id}/onnx`, `model-${model.id}.onnx`);
  }, { class: "small", title: "Made the first time it is asked for, in a minute or so" });
  return [file(`Checkpoint, ${bytes(model.size)}`, "checkpoint", "pt"), file("safetensors", "weights", "safetensors"), onnx];
}

async function haveOnnx(model, signal) {
  const job = await post(`/models/${model.id}/onnx`, undefined, { signal });
  let announced = false;
  for (let now = job; ; now = await get(`/jobs/${job.id}`, { signal })) {
    if (now.state.startsWith("succeeded")) return;
    if (["failed", "cancelled"].includes(now.state)) throw new ApiError(0, { detail: now.error ?? `The job that makes the ONNX file is ${now.state}.` });
    if (!announced) toast("The ONNX file is being made; it is saved as soon as it is there.");
    announced = true;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    signal.throwIfAborted();
  }
}

function tag(alias, readAliases) {
  const take = async () => {
    const done = await changed(() => remove(`/models/aliases/${alias.name}`, { headers: { "If-Match": `"${alias.revision}"` } }), readAliases);
    if (done) announce(`${alias.name} is removed`);
  };
  return h("li", { class: "badge", "data-tone": "good" }, alias.name, button(icon("cross"), take, { class: "quiet icon tiny", "aria-label": `Remove the name ${alias.name}` }));
}

function naming(model, aliases, readAliases) {
  const input = h("input", { placeholder: "production", "aria-label": `A name for ${model.name || model.id}`, pattern: "[a-zA-Z][a-zA-Z0-9_.\\-]*", maxlength: 64, required: true, autocomplete: "off", spellcheck: "false" });
  const submit = once(async () => {
    const name = input.value.trim();
    const existing = aliases.get(name);
    const condition = existing ? { "If-Match": `"${existing.revision}"` } : { "If-None-Match": "*" };
    const done = await changed(() => put(`/models/aliases/${encodeURIComponent(name)}`, { model: model.id }, { headers: condition }), readAliases);
    if (!done) return;
    input.value = "";
    toast(existing ? `${name} names this model now.` : `${name} is a name of this model.`, "good");
  });
  return h("form", { class: "row nowrap naming", onsubmit: submit }, input, h("button", { class: "small" }, "Name it"));
}

async function changed(work, readAliases) {
  try {
    await work();
    return true;
  } catch (error) {
    toast(error.status === 412 ? "Somebody else has moved this name meanwhile; look where it is now, and try again." : error.message, "bad");
    return false;
  } finally {
    await readAliases();
  }
}
