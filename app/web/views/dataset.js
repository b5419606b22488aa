/* A data set: its images with their points, its classes, its trainings; and what to do with it. */

import { bitmap, get, remove } from "../core/api.js";
import { byClass } from "../viewer/colours.js";
import { button, confirm, dialog, fill, h, icon, imageElement, problem, s, toast } from "../core/dom.js";
import { count, percent, when } from "../core/format.js";
import { swatch } from "../editor/pointeditor.js";
import { train } from "../jobs/train_dialog.js";
import { health } from "./health.js";
import { Viewer } from "../viewer/viewer.js";
import { follow, statusBadge } from "./datasets.js";
import { row } from "./jobs.js";

export async function show(root, params, { signal }) {
  let dataset = await get(`/datasets/${params.id}`, { signal });
  if (dataset.status === "importing") {
    const box = h("div", { class: "card stack" });
    fill(root, h("div", { class: "row" }, h("h1", null, dataset.name), statusBadge("importing")), box);
    root.removeAttribute("aria-busy");
    dataset = await follow(dataset.id, (now, report) => importing(box, now, report.progress), signal);
    if (!dataset || signal.aborted) return;
  }
  fill(root, head(dataset, signal), dataset.status === "invalid" ? invalid(dataset) : null);
  if (dataset.status !== "ready") return;
  const { jobs } = await get("/jobs", { params: { dataset_id: dataset.id, limit: 20 }, signal });
  const trainings = jobs.filter((job) => job.kind !== "import");
  root.append(h("div", { class: "split" },
    h("section", { class: "stack", "aria-labelledby": "images" }, h("h2", { id: "images" }, "Images"), await gallery(dataset, signal)),
    h("aside", { class: "stack", "aria-label": "About this data set" },
      h("section", { class: "card stack" }, h("h2", null, "Classes"), classes(dataset)),
      health(dataset, trainings, signal),
      h("section", { class: "stack" }, h("h2", null, "Trainings"), trainings.length ? trainings.map((job) => row(job)) : h("p", { class: "hint" }, "None yet.")),
      warnings(dataset))));
}

function head(dataset, signal) {
  const ready = dataset.status === "ready";
  const drop = button([icon("trash"), "Delete"], () => forget(dataset, signal), { class: "quiet" });
  return h("div", { class: "stack tight" },
    h("div", { class: "row spread" },
      h("div", { class: "row" }, h("h1", null, dataset.name), statusBadge(dataset.status)),
      h("div", { class: "row" }, drop,
        ready && h("a", { class: "button", href: `#/datasets/${dataset.id}/edit` }, "Edit points"),
        ready && button([icon("play"), "Train"], () => void train(dataset, { signal }).catch((error) => toast(error.message, "bad")), { class: "primary" }))),
    h("p", { class: "lead" }, count(dataset.images, "image"), ", ", count(dataset.annotations, "point"), ", ", when(dataset.created_at),
      dataset.parent_id && [". A new version of ", h("a", { href: `#/datasets/${dataset.parent_id}` }, "another data set"), "."]));
}

function importing(box, dataset, progress) {
  const share = progress?.progress ?? 0;
  const steps = progress?.of ? `, ${progress.step} of ${progress.of}` : "";
  fill(box, h("p", null, `The service reads it: ${progress?.stage ?? "waiting"}${steps}.`),
    h("progress", { value: share, max: 1, "aria-label": `Import of ${dataset.name}` }),
    h("small", { class: "number" }, percent(share)),
    progress?.error && h("p", { class: "note" }, progress.error),
    progress?.job_id && h("a", { href: `#/jobs/${progress.job_id}` }, "The import in detail"));
}

function invalid(dataset) {
  const errors = dataset.report.errors;
  const refusal = { title: "It cannot be used", message: `${count(errors.length, "thing is", "things are")} wrong. Correct them and send it again.`, errors };
  return problem(refusal);
}

async function forget(dataset, signal) {
  const text = "Its images and points go, and with it its trainings, their masks and their models. This cannot be undone.";
  if (!(await confirm(`Delete ${dataset.name}?`, text, "Delete"))) return;
  await remove(`/datasets/${dataset.id}`, { params: { force: true } });
  toast(`${dataset.name} is gone.`, "good");
  if (!signal.aborted) location.hash = "#/datasets";
}

function classes(dataset) {
  const colours = byClass(dataset.categories);
  return h("ul", { class: "plain stack tight" }, [...colours].map(([id, { name, css }]) =>
    h("li", { class: "row nowrap spread" }, h("span", { class: "row nowrap" }, swatch(css), name), h("span", { class: "number hint" }, count(dataset.categories.find((c) => c.id === id).annotations, "point")))));
}

function warnings(dataset) {
  const { report } = dataset;
  const lines = [
    ...report.warnings.map((warning) => `${warning.pointer ? `${warning.pointer}: ` : ""}${warning.detail}`),
    report.images_without_annotations ? `${count(report.images_without_annotations, "image has", "images have")} no point` : null,
    report.crowd ? `${count(report.crowd, "crowd annotation is", "crowd annotations are")} left out` : null,
    report.ignored_files.count ? `${count(report.ignored_files.count, "file was", "files were")} not named by the annotations: ${report.ignored_files.examples.join(", ")}` : null,
  ].filter(Boolean);
  if (!lines.length) return null;
  return h("section", { class: "card stack" }, h("h2", null, "Worth knowing"), h("ul", { class: "stack tight inset" }, lines.map((line) => h("li", null, line))));
}

async function gallery(dataset, signal) {
  const colours = byClass(dataset.categories);
  const list = h("ul", { class: "grid images" });
  let cursor = null;
  const more = button("More images", () => next());
  async function next() {
    const page = await get(`/datasets/${dataset.id}/images`, { params: { limit: 60, cursor }, signal });
    cursor = page.next;
    more.hidden = !cursor;
    list.append(...page.images.map((image) => tile(dataset, image, colours, signal)));
  }
  await next();
  return h("div", { class: "stack" }, list, more);
}

const pointsOf = (dataset, image, signal) =>
  get(`/datasets/${dataset.id}/annotations`, { params: { image_id: image.id, limit: 1000 }, signal }).then((page) => page.annotations);

/* The points are requested with the image, once it comes near the screen. */
function tile(dataset, image, colours, signal) {
  const path = `/datasets/${dataset.id}/images/${image.id}`;
  const img = imageElement(path, { class: "asis" });
  const frame = h("span", { class: "frame" }, img);
  img.addEventListener("load", async () => {
    if (!image.annotations) return;
    const points = await pointsOf(dataset, image, signal).catch(() => []);
    frame.append(dots(image, points, colours));
  }, { once: true });
  const open = button([frame, h("span", { class: "row nowrap spread caption" }, h("span", { class: "name" }, image.file_name), h("span", { class: "number hint" }, String(image.annotations)))], () => large(dataset, image, colours, signal), { class: "tile", "aria-label": `${image.file_name}, ${count(image.annotations, "point")}` });
  return h("li", null, open);
}

function dots(image, points, colours) {
  const radius = Math.max(image.width, image.height) / 70;
  const svg = s("svg", { viewBox: `0 0 ${image.width} ${image.height}`, class: "dots", "aria-hidden": "true" });
  return fill(svg, points.map((p) => {
    const dot = s("circle", { cx: p.point[0], cy: p.point[1], r: radius, "stroke-width": radius / 2.5 });
    dot.style.fill = colours.get(p.category_id)?.css;
    return dot;
  }));
}

async function large(dataset, image, colours, left) {
  const closing = new AbortController();
  const { signal } = closing;
  left.addEventListener("abort", () => closing.abort());
  const viewer = new Viewer({ label: `${image.file_name} with its points; arrows move it, plus and minus zoom`, signal });
  const [source, points] = await Promise.all([bitmap(`/datasets/${dataset.id}/images/${image.id}`), pointsOf(dataset, image, signal)]);
  if (signal.aborted) return;
  viewer.layers.push((context, { scale }) => {
    for (const { point: [x, y], category_id: id } of points) {
      context.beginPath();
      context.arc(x, y, 6 / scale, 0, 7);
      context.fillStyle = colours.get(id)?.css;
      context.fill();
      for (const [width, style] of [[4, "rgb(0 0 0 / 0.6)"], [2, "#fff"]]) {
        context.lineWidth = width / scale;
        context.strokeStyle = style;
        context.stroke();
      }
    }
  });
  const shown = dialog(image.file_name, () => [h("div", { class: "zoomed" }, viewer.element), h("p", { class: "hint" }, `${image.width} × ${image.height} pixels, ${count(points.length, "point")}`)]);
  viewer.element.closest("dialog").classList.add("wide");
  await viewer.show(source);
  await shown;
  closing.abort();
}
