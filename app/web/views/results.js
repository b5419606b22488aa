/* #/jobs/{id}/results: photographs with their masks, the worst quality first; one large on a click;
   figures where there is truth; exports and downloads.

   show(root, {id}, {signal})
   The query (?class=, ?quality=, ?status=) keeps the filter, so that it may be sent to somebody. */

import { all, key, request, save, saveBlob } from "../core/api.js";
import { announce, button, field, fill, h, icon, problem } from "../core/dom.js";
import { exportsPanel } from "../jobs/exports.js";
import { count, reference } from "../core/format.js";
import { openLarge } from "../viewer/full_view.js";
import { badge, className, names, ofImage, openJob, quality, STATUS, worstFirst } from "../viewer/masks.js";
import { drawPoint, drawShape, objectColour, shapeOf } from "../viewer/overlay.js";
import { paintSmall, small, whenSeen } from "../viewer/image_cache.js";

const MORE = 24; // cards at once

export async function show(root, { id, query }, { signal }) {
  const { job, dataset, classes } = await openJob(id, signal);
  const place = { job, dataset, classes, names: await names(dataset.id, signal), signal };
  const exporting = exportsPanel(job, signal);
  fill(root, head(place, exporting), figures(job), gallery(place, query), exporting.element);
  await compareWith(place, root.querySelector("[data-compare]"));
}

function head({ job, dataset }, exporting) {
  const saved = (path, name, label) => button([icon("download"), label], () => save(path, name), { class: "small" });
  return h("div", { class: "stack" },
    h("div", { class: "row spread" },
      h("div", { class: "stack tight" },
        h("h1", null, "Results"),
        h("p", { class: "lead" }, h("a", { href: `#/datasets/${dataset.id}` }, dataset.name), ` · ${job.method} · preset ${job.preset} · seed ${job.seed}`)),
      h("div", { class: "row" },
        h("a", { class: "button primary", href: `#/jobs/${job.id}/review` }, icon("check"), "Review the masks"),
        button([icon("download"), "Export"], () => exporting.reveal()))),
    h("div", { class: "row" },
      h("a", { class: "button small quiet", href: `#/jobs/${job.id}` }, icon("back"), "The job"),
      key() // a link cannot send it
        ? saved(`/jobs/${job.id}/report.html`, `report-${job.id}.html`, "Report")
        : h("a", { class: "button small", href: `jobs/${job.id}/report.html`, target: "_blank", rel: "noopener" }, "Report"),
      saved(`/jobs/${job.id}/checkpoint`, `model-${job.id}.pt`, "Checkpoint"),
      button([icon("download"), "NDJSON"], () => saveLines(job), { class: "small" }),
      h("span", { class: "row", "data-compare": "" })));
}

/* The API gives NDJSON to those who ask for it; a link cannot ask. */
async function saveLines(job) {
  const answer = await request(`/jobs/${job.id}/pseudo-masks`, { headers: { Accept: "application/x-ndjson" } });
  saveBlob(await answer.blob(), `pseudo-masks-${job.id}.ndjson`);
}

async function compareWith({ job, dataset, signal }, node) {
  if (!dataset.parent_id) return;
  for await (const other of all("/jobs", "jobs", { params: { dataset_id: dataset.parent_id }, signal })) {
    if (!other.model_id || other.kind !== "train") continue;
    fill(node, h("a", { class: "button small", href: `#/jobs/${other.id}/compare/${job.id}` }, "Compare with before"));
    return;
  }
}

const FIGURES = [
  ["pseudo_masks", "miou_mask", "Mean IoU of the masks", "with the ground truth of the data set"],
  ["pseudo_masks", "miou_box", "Mean IoU of their boxes", null],
  ["model", "AP", "AP of the model", "COCO's, mean over IoU 0.50 to 0.95"],
  ["model", "AP50", "AP50 of the model", null],
  ["validation", "AP", "AP on images held out", null],
  ["validation", "AP50", "AP50 on images held out", null],
];

function figures(job) {
  const tiles = FIGURES.map(([part, name, label, hint]) => [job.metrics?.[part]?.[name], label, part === "validation" && job.metrics.validation ? `against ${reference(job.metrics.validation.against)}` : hint]).filter(([value]) => typeof value === "number");
  if (tiles.length === 0) return null;
  return h("dl", { class: "tiles" }, tiles.map(([value, label, hint]) =>
    h("div", { class: "card figure" }, h("dt", null, label), h("dd", { class: "number" }, value.toFixed(3)), hint && h("dd", { class: "hint" }, hint))));
}

function gallery(place, query) {
  const wanted = { class: query.get("class") ?? "", quality: Number(query.get("quality") ?? 1), status: query.get("status") ?? "" };
  const cards = h("ul", { class: "grid photos" });
  const summaryText = h("p", { class: "hint", role: "status" });
  const more = h("div", { class: "row end" });
  const colouring = h("select", null, h("option", { value: "class" }, "class"), h("option", { value: "object" }, "object"));
  colouring.value = place.classes.size > 1 ? "class" : "object";
  let stop = new AbortController();
  let shown = [];

  const params = () => ({ category_id: wanted.class, max_quality: wanted.quality < 1 ? wanted.quality : null, status: wanted.status });
  const colours = (mask, index) => (colouring.value === "class" ? place.classes.get(mask.category_id)?.css : null) ?? objectColour(index);

  async function start() {
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    place.signal.addEventListener("abort", () => stop.abort());
    shown = [];
    fill(cards);
    fill(more);
    const order = imagesOf(worstFirst(place.job.id, params(), signal), (counts) => signal.aborted || summaryText.replaceChildren(summary(counts)));
    await next(order, signal);
  }

  async function next(order, signal) {
    try {
      const first = shown.length;
      for (let left = MORE; left > 0; left--) {
        const { value, done } = await order.next();
        if (signal.aborted) return;
        if (done) {
          fill(more);
          if (shown.length === 0) fill(cards, h("li", { class: "empty" }, "No mask is like that. Choose another class, status or quality."));
          return;
        }
        shown.push(value);
        cards.append(card(place, value, shown.length - 1, { params, colours, signal, open }));
      }
      const press = async () => {
        await next(order, signal);
        cards.children[first + MORE]?.querySelector("button")?.focus();
      };
      fill(more, button("Show more", press));
    } catch (error) {
      if (error.name !== "AbortError") fill(more, problem(error));
    }
  }

  function open(index) {
    openLarge({ ...place, images: shown.map((mask) => mask.image_id), index, params: params(), colours });
  }

  const filter = filters(place, wanted, colouring, () => {
    const filterQuery = new URLSearchParams(Object.entries(wanted).filter(([name, value]) => value !== "" && !(name === "quality" && value >= 1)));
    history.replaceState(history.state, "", `#/jobs/${place.job.id}/results${filterQuery.size ? `?${filterQuery}` : ""}`);
    return start();
  });
  colouring.addEventListener("change", start);
  start();
  return h("section", { class: "stack", "aria-label": "Masks" }, filter, summaryText, cards, more);
}

const summary = (counts) => `${count(Object.values(counts).reduce((a, b) => a + b, 0), "mask")}, the worst quality first: ${STATUS.map(([name, label]) => `${counts[name]} ${label}`).join(", ")}.`;

/* The worst mask of each image, in the order in which the images come up. */
async function* imagesOf(pages, oncounts) {
  const listed = new Set();
  for await (const { masks, counts } of pages) {
    oncounts(counts);
    for (const mask of masks) {
      if (listed.has(mask.image_id)) continue;
      listed.add(mask.image_id);
      yield mask;
    }
  }
}

function filters({ classes }, wanted, colouring, onchange) {
  const select = (name, options) => {
    const node = h("select", { onchange: () => { wanted[name] = node.value; onchange(); } }, options.map(([value, label]) => h("option", { value }, label)));
    node.value = wanted[name];
    return node;
  };
  const slider = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: wanted.quality });
  const summaryText = h("output", { class: "number" }, quality(wanted.quality));
  let waiting = null;
  slider.addEventListener("input", () => {
    wanted.quality = Number(slider.value);
    summaryText.textContent = quality(wanted.quality);
    clearTimeout(waiting);
    waiting = setTimeout(onchange, 200);
  });
  const range = field("Quality at most", slider);
  range.querySelector("label").append(" ", summaryText);
  return h("div", { class: "card filters" },
    field("Class", select("class", [["", "all"], ...[...classes].map(([id, c]) => [id, c.name])])),
    field("Status", select("status", [["", "all"], ...STATUS.map(([value, label]) => [value, label])])),
    range,
    field("Colour by", colouring));
}

function card(place, worst, index, { params, colours, signal, open }) {
  const canvas = h("canvas", { class: "image", "aria-hidden": "true" });
  const [height, width] = worst.segmentation.size;
  [canvas.width, canvas.height] = [width, height]; // its place is kept while it loads
  const name = () => place.names.get(worst.image_id) ?? `image ${worst.image_id}`;
  const title = h("span", { class: "grow ellipsis" }, name());
  const about = h("span", { class: "hint row" }, "…");
  const press = h("button", { type: "button", class: "photo", onclick: () => open(index) }, canvas, h("span", { class: "stack tight caption" }, h("span", { class: "row nowrap spread" }, title, h("span", { class: "number grade" }, quality(worst.quality))), about));
  whenSeen(press, async () => {
    try {
      const [image, masks] = await Promise.all([small(place.dataset.id, worst.image_id), ofImage(place.job.id, worst.image_id, params(), signal)]);
      paintSmall(canvas, image, (ctx, scale) => {
        masks.forEach((mask, i) => drawShape(ctx, shapeOf(mask.segmentation), colours(mask, i), { scale, dashed: mask.status === "rejected" }));
        for (const mask of masks) drawPoint(ctx, ...mask.point, { scale, plain: true });
      });
      const states = STATUS.filter(([status]) => status !== "open" && masks.some((m) => m.status === status));
      fill(about, count(masks.length, "mask"), states.map(([status]) => badge({ status })));
      title.textContent = name();
    } catch (error) {
      if (signal.aborted) return;
      press.classList.add("missing");
      fill(about, `cannot be shown: ${error.message}`);
      announce(`${name()} cannot be shown`);
    }
  }, signal);
  press.setAttribute("aria-label", `${name()}: worst quality ${quality(worst.quality)}, ${className(place.classes, worst)}. Open it large`);
  return h("li", null, press);
}
