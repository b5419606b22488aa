/* The panel of a job's exports: ask for one, watch it, take it away, read what was left out.

   exportsPanel(job, signal)   {element, reveal()}: a <section>; reveal() brings it into view */

import { all, get, post, save } from "../core/api.js";
import { announce, button, field, fill, h, icon, once, problem } from "../core/dom.js";
import { bytes, count, when } from "../core/format.js";

const FORMATS = [
  ["coco", "COCO, RLE", "Exact, holes and parts kept"],
  ["coco-polygons", "COCO, polygons", "For tools that read no RLE; loses a little at the border"],
  ["yolo-seg", "YOLO segmentation", "A text file an image, polygons"],
  ["voc", "PASCAL VOC", "XML with boxes, and masks as PNG"],
  ["png", "PNG masks", "16-bit instances, an image each"],
  ["label-studio", "Label Studio", "To import as pre-annotations"],
  ["cvat", "CVAT", "To import as annotations"],
];
const POLYGONS = ["coco-polygons", "yolo-seg"];
const OVER = ["succeeded", "succeeded_with_warnings", "failed", "cancelled"];
const TONES = { succeeded: "good", succeeded_with_warnings: "warn", failed: "bad", cancelled: "bad" };

export function exportsPanel(job, signal) {
  const format = h("select", null, FORMATS.map(([value, label]) => h("option", { value }, label)));
  const hint = h("span", null, FORMATS[0][2]);
  format.addEventListener("change", () => {
    hint.textContent = FORMATS.find(([value]) => value === format.value)[2];
    simplified.hidden = !POLYGONS.includes(format.value);
  });
  const least = h("input", { type: "number", min: 0, max: 1, step: 0.05, value: 0, inputmode: "decimal" });
  const simplify = h("input", { type: "number", min: 0, max: 100, step: 0.5, value: 0, inputmode: "decimal" });
  const simplified = field("Simplify polygons by", simplify, "Pixels that they may leave the outline by; 0 is exact");
  simplified.hidden = true;
  const images = h("input", { type: "checkbox" });
  const list = h("ul", { class: "plain stack" });
  const errors = h("div");

  async function ask() {
    fill(errors);
    try {
      const wished = { format: format.value, min_quality: Number(least.value), images: images.checked };
      if (!simplified.hidden) wished.simplify = Number(simplify.value);
      const made = await post(`/jobs/${job.id}/exports`, wished, { signal });
      list.querySelector(".empty")?.remove();
      const row = h("li", { class: "card stack tight" });
      list.prepend(row);
      watch(row, made, signal).then(() => row.querySelector("button")?.focus());
    } catch (error) {
      if (!signal.aborted) fill(errors, problem(error));
    }
  }

  const form = h("form", { class: "card stack", onsubmit: once(ask) },
    h("div", { class: "filters" }, field("Format", format, hint), field("Quality threshold", least, "Masks below it stay behind"), simplified),
    h("div", { class: "row spread" }, h("label", { class: "row nowrap" }, images, "with the images"), h("button", { class: "primary" }, "Make the export")),
    errors);
  const heading = h("h2", { id: "exports", tabindex: "-1" }, "Exports");
  const element = h("section", { class: "stack", "aria-labelledby": "exports" }, heading, form, list);
  const reveal = () => {
    heading.scrollIntoView({ block: "start" });
    format.focus({ preventScroll: true });
  };
  listExisting(job, list, signal);
  return { element, reveal };
}

async function listExisting(job, list, signal) {
  try {
    for await (const made of all(`/jobs/${job.id}/exports`, "exports", { signal })) {
      const row = h("li", { class: "card stack tight" });
      list.append(row);
      watch(row, made, signal);
    }
    if (!list.children.length) fill(list, h("li", { class: "empty" }, "No export yet. Choose a format above."));
  } catch (error) {
    if (!signal.aborted) fill(list, h("li", null, problem(error)));
  }
}

async function watch(row, made, signal) {
  for (let wait = 150; ; wait = Math.min(wait * 1.5, 2_000)) {
    draw(row, made);
    if (OVER.includes(made.state)) return announce(`Export ${made.format}: ${made.state.replaceAll("_", " ")}`);
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (signal.aborted) return;
    try {
      made = await get(`/exports/${made.id}`, { signal });
    } catch (error) {
      if (!signal.aborted) fill(row, problem(error));
      return;
    }
  }
}

function draw(row, made) {
  const label = FORMATS.find(([value]) => value === made.format)?.[1] ?? made.format;
  const done = made.state.startsWith("succeeded");
  const running = !OVER.includes(made.state);
  const facts = [
    made.report && count(made.report.masks, "mask"),
    made.min_quality > 0 && `quality from ${made.min_quality}`,
    made.size && bytes(made.size),
    made.created_at && when(made.created_at),
  ].filter(Boolean);
  fill(row,
    h("div", { class: "row spread" },
      h("div", { class: "row" }, h("h3", null, label), h("span", { class: "badge", "data-tone": TONES[made.state] ?? "busy" }, made.state.replaceAll("_", " "))),
      done && button([icon("download"), "Download"], () => save(`/exports/${made.id}/file`, made.filename), { class: "small primary", "aria-label": `Download ${label}` })),
    running && h("progress", { max: 1, value: made.progress ?? 0, "aria-label": `Export ${label}` }),
    facts.length > 0 && h("p", { class: "hint number" }, facts.join(" · ")),
    made.error && h("p", { class: "problem" }, made.error),
    made.report && report(made.report));
}

function report({ round_trip: trip, left_out: left, left_out_count: lost, rejected, notes }) {
  const object = ({ id, image_id: image }) => (id === null ? `image ${image}` : `object ${id}, image ${image}`);
  return [
    trip.mean_iou !== null && h("p", { class: "hint" }, trip.mean_iou === 1 ? "Read back, every mask is the same, pixel by pixel." : `Read back, a mask keeps ${(100 * trip.mean_iou).toFixed(1)} % of itself (mean IoU).`),
    rejected > 0 && h("p", { class: "hint" }, `${count(rejected, "rejected mask")} stayed behind.`),
    notes.map((note) => h("p", { class: "hint" }, note)),
    trip.worst.length > 0 && details(`${count(trip.worst.length, "mask")} that lost most`, trip.worst.map((w) => h("li", null, `${object(w)}: IoU ${w.iou.toFixed(3)}`))),
    lost > 0 && details(`${count(lost, "mask")} left out`, left.slice(0, 500).map((l) => h("li", null, `${object(l)}: ${l.why}`))),
  ];
}

function details(summary, items) {
  return h("details", null, h("summary", null, summary), h("ul", { class: "hint" }, items));
}
