/* The dialog that starts a training. train(dataset, {model, preset, signal}) resolves once it is closed,
   with the job that was started, which is shown, or null; of a view that is left it asks nothing.
   model: the id of one to go on from; preset: the one to begin with. */

import { get, post } from "../core/api.js";
import { button, dialog, field, fill, h, problem } from "../core/dom.js";
import { about, count, short, when } from "../core/format.js";

const PRESETS = {
  auto: "Chosen by the machine, the images and the weights that there are.",
  demo: "Four minutes on two cores: a first look, on images made small.",
  gpu: "For one GPU of 8 GB or more: ResNet-50 at 448 pixels.",
  cpu: "A quarter of an hour to hours on a CPU, by the number of images. For figures that count.",
  light_r18: "As cpu, with a wider network (ResNet-18) at 448 pixels. For a small GPU, or to go on from a model trained on COCO.",
  light_r34: "The same on ResNet-34.",
  light_r50: "The same on ResNet-50.",
  paper_r50_1x: "As in the paper, ResNet-50. It wants a GPU.",
  paper_r101_3x: "As in the paper, ResNet-101, three times as long. It wants a good GPU.",
};
const METHODS = {
  "sapnet++": "The best masks: with completeness and refinement.",
  p2seg: "Masks by a semantic map that is split among the points. For many touching objects of one class.",
  sim: "Masks learned from boxes, by colours and by what objects of a class have in common. For objects with boxes.",
  sapnet: "The method before it: no completeness, no refinement. Faster.",
  mil: "Choosing among proposals by learning alone. To compare with.",
  consensus: "The proposal on which the others agree. No learning about masks; to compare with.",
  "box-rule": "The proposal that fits the object's box best. No learning about masks; for objects with boxes.",
  "sam-top1": "The proposal of the highest confidence. No learning about masks; to compare with.",
};
const PROPOSALS = {
  "": "What the service is set to.",
  "hierarchy+prompter": "Regions of the image, and masks by the small network that comes with the service. A second for ten points on a CPU.",
  hierarchy: "Regions of the image alone. A third of the time, for drawings and diagrams.",
  prompter: "The small network alone.",
  sam: "Segment Anything at each point. Better masks; needs its weights and, better, a GPU.",
  sam2: "Segment Anything 2.1 at each point. Needs its weights and the extra sam2; better with a GPU.",
};

/* What the service offers, in its own order: a newer one may know more than this page. */
async function offered() {
  const { components } = await get("/openapi.json");
  const { properties } = components.schemas.TrainRequest;
  return { presets: properties.preset.enum, methods: properties.method.enum, goesOn: "from_model" in properties };
}

const choice = (values, chosen) => h("select", null, values.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));

/* A select whose line below explains what is chosen. */
function explained(label, select, texts) {
  const node = field(label, select, " ");
  const hint = node.querySelector(".hint");
  const updateHint = () => (hint.textContent = texts[select.value] ?? "");
  select.addEventListener("change", updateHint);
  updateHint();
  return node;
}

export async function train(dataset, { model = null, preset: wished = null, signal } = {}) {
  const [can, { models }] = await Promise.all([offered(), get("/models", { params: { limit: 50 } })]);
  if (signal?.aborted) return null;
  const preset = choice(can.presets.map((name) => [name, name]), wished ?? (can.presets.includes("auto") ? "auto" : "cpu"));
  const method = choice(can.methods.map((name) => [name, name]), "sapnet++");
  const proposals = choice([["", "the service's own"], ["hierarchy+prompter", "regions and network"], ["hierarchy", "regions"], ["prompter", "network"], ["sam", "Segment Anything"], ["sam2", "Segment Anything 2.1"]], "");
  const epochs = h("input", { type: "number", min: 1, max: 1000, step: 1, placeholder: "the preset's", inputmode: "numeric" });
  const seed = h("input", { type: "number", min: 0, step: 1, value: "0", required: true, inputmode: "numeric" });
  const from = choice([["", "fresh weights"], ...models.map((m) => [m.id, `${m.name || short(m.id)}, ${when(m.created_at)}`])], model ?? "");
  if (model && from.value !== model) from.append(h("option", { value: model, selected: true }, short(model)));
  const body = () => ({
    dataset_id: dataset.id,
    preset: preset.value,
    method: method.value,
    seed: Number(seed.value),
    ...(proposals.value ? { proposals: proposals.value } : {}),
    ...(epochs.value ? { overrides: { "train.epochs": Number(epochs.value) } } : {}),
    ...(from.value ? { from_model: from.value } : {}),
  });
  const time = h("p", { class: "hint", "aria-live": "polite" });
  let asked = 0;
  async function tellTime() {
    const turn = ++asked;
    const plan = await post("/jobs/train", body(), { params: { dry_run: true } }).catch(() => null); // what is wrong, Train says
    const chosen = plan?.reasons?.length ? `${plan.reasons.join(" ")} So it is ${plan.preset}. ` : "";
    if (turn === asked) time.textContent = plan ? `${chosen}It takes ${about(plan.estimate.total)} on this machine: ${about(plan.estimate.low).slice(6)} to ${about(plan.estimate.high).slice(6)}.` : "";
  }
  const started = await dialog("Train", (close) => {
    tellTime();
    const box = h("div");
    const form = h("form", { class: "stack", onchange: tellTime });
    const go = button("Train", async () => {
      if (!form.reportValidity()) return;
      try {
        close(await post("/jobs/train", body()));
      } catch (error) {
        fill(box, problem(error));
      }
    }, { class: "primary", autofocus: true });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      go.click();
    });
    return fill(form,
      h("p", { class: "lead" }, `${dataset.name}: ${count(dataset.images, "image")}, ${count(dataset.annotations, "point")}.`),
      explained("Preset", preset, PRESETS),
      can.goesOn && models.length + (model ? 1 : 0) > 0 && field("Begin with", from, "A model trained before knows much already: fewer epochs do, and what was corrected counts at once."),
      h("details", { open: false }, h("summary", null, "More settings"),
        h("div", { class: "stack" },
          explained("Method", method, METHODS),
          explained("Proposals", proposals, PROPOSALS),
          field("Epochs", epochs, "How often each image is seen. Empty: as the preset has it."),
          field("Seed", seed, "The same seed gives the same training."))),
      time, box, h("div", { class: "row end" }, button("Back", () => close(), { class: "quiet" }), go));
  });
  if (started && !signal?.aborted) location.hash = `#/jobs/${started.id}`;
  return started;
}
