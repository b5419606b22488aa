/* #/jobs/{id}/compare/{other}: a training beside another of (nearly) the same objects, before and
   after: figures, and the masks that changed most first.

   show(root, {id, other}, {signal})   id is before, other is after */

import { get } from "../core/api.js";
import { button, fill, h, icon, problem } from "../core/dom.js";
import { className, names, ofImage, openJob, quality } from "../viewer/masks.js";
import { drawPoint, drawShape, shapeOf } from "../viewer/overlay.js";
import { paintPiece, photo, whenSeen } from "../viewer/image_cache.js";

export async function show(root, { id, other }, { signal }) {
  const [before, after] = await Promise.all([openJob(id, signal), openJob(other, signal)]);
  const first = await page(id, other, null, signal);
  const place = { before, after, names: await names(after.dataset.id, signal), signal, images: new Map() };
  fill(root,
    h("div", { class: "stack tight" },
      h("h1", null, "Before and after"),
      h("p", { class: "row" }, titled("Before", before), icon("next"), titled("After", after))),
    figures(first),
    pairs(place, first));
}

const page = (id, other, cursor, signal) => get(`/jobs/${id}/compare/${other}`, { params: { limit: 24, cursor }, signal });

const titled = (label, { job, dataset }) => h("span", null, h("span", { class: "hint" }, `${label}: `), h("a", { href: `#/jobs/${job.id}/results` }, `${dataset.name}, ${job.preset}`));

/* Every number that both sides have, or one of them. */
function* numbers(before, after, name) {
  for (const key of new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])) {
    const [a, b] = [before?.[key], after?.[key]];
    if (typeof a === "number" || typeof b === "number") yield [`${name}: ${key.replaceAll("_", " ")}`, a, b];
  }
}

function figures({ metrics, quality: qualities }) {
  const parts = [["quality", qualities.before, qualities.after], ...["pseudo_masks", "model"].map((part) => [part.replace("pseudo_", ""), metrics.before[part], metrics.after[part]])];
  const rows = parts.flatMap(([name, before, after]) => [...numbers(before, after, name)]);
  const shown = (value) => (typeof value === "number" ? (Number.isInteger(value) ? String(value) : value.toFixed(3)) : "–");
  const change = (a, b) => (typeof a === "number" && typeof b === "number" ? b - a : null);
  const rowOf = ([name, a, b]) => {
    const by = change(a, b);
    const tone = !by || /count|gap|masks$/.test(name) ? null : by > 0 ? "better" : "worse";
    const text = by === null ? "" : `${by > 0 ? "+" : by < 0 ? "−" : "±"}${shown(Math.abs(by))}`;
    return h("tr", null, h("th", { scope: "row" }, name), h("td", { class: "number" }, shown(a)), h("td", { class: "number" }, shown(b)), h("td", { class: `number ${tone ?? ""}` }, text));
  };
  const heads = ["Figure", "Before", "After", "Change"].map((text) => h("th", { scope: "col" }, text));
  return h("section", { class: "panel scroll", tabindex: "0", role: "region", "aria-label": "Figures" }, h("table", { class: "figures" }, h("thead", null, h("tr", null, heads)), h("tbody", null, rows.map(rowOf))));
}

function pairs(place, first) {
  const list = h("ul", { class: "grid pairs" });
  const more = h("div", { class: "row end" });
  const add = ({ masks, next }) => {
    list.append(...masks.map((mask) => pair(place, mask)));
    if (list.children.length === 0) fill(list, h("li", { class: "empty" }, "The two have no object in common."));
    fill(more, next && button("Show more", async () => add(await page(place.before.job.id, place.after.job.id, next, place.signal))));
  };
  add(first);
  return h("section", { class: "stack" }, h("h2", null, "Masks"), h("p", { class: "hint" }, "Those that changed most come first. The IoU is that of the mask before with the one after."), list, more);
}

function pair(place, mask) {
  const canvases = [0, 1].map(() => h("canvas", { width: 240, height: 240, "aria-hidden": "true" }));
  const name = () => place.names.get(mask.image_id) ?? `image ${mask.image_id}`;
  const title = h("span", { class: "grow ellipsis" }, `object ${mask.id}, ${name()}`);
  const shown = h("p", { class: "hint number" }, `quality ${quality(mask.quality_before)} → ${quality(mask.quality_after)}`);
  const node = h("li", { class: "panel" }, h("div", { class: "pair" }, canvases),
    h("div", { class: "caption stack tight" }, h("div", { class: "row nowrap spread" }, title, h("span", { class: "grade number" }, mask.iou === null ? "no IoU" : `IoU ${quality(mask.iou)}`)), shown));
  whenSeen(node, async () => {
    try {
      const [whole, ...both] = await Promise.all([photo(place.after.dataset.id, mask.image_id), ...[place.before, place.after].map((side) => masksOf(place, side.job.id, mask.image_id))]);
      const [was, is] = both.map((masks) => masks.find((m) => m.id === mask.id));
      title.textContent = `${className(place.after.classes, is ?? was)} ${mask.id}, ${name()}`;
      const box = around([was, is].filter(Boolean).map((m) => shapeOf(delivered(m)).box).filter(Boolean)) ?? [...(is ?? was).point, 1, 1];
      [was, is].forEach((one, i) => paintPiece(canvases[i], whole, box, (ctx, scale) => {
        if (!one) return;
        drawShape(ctx, shapeOf(delivered(one)), place.after.classes.get(one.category_id)?.css ?? "#4fd1c5", { scale, line: 2.5 });
        drawPoint(ctx, ...one.point, { scale, plain: true });
      }));
    } catch (error) {
      if (!place.signal.aborted) fill(shown, problem(error));
    }
  }, place.signal);
  return node;
}

/* What the training gave, whatever was decided about it since: the IoU is between those. */
const delivered = (mask) => mask.delivered ?? mask.segmentation;

/* Those of an image are asked for once, however many of them are shown. */
function masksOf({ images, signal }, jobId, imageId) {
  const key = `${jobId} ${imageId}`;
  if (!images.has(key)) images.set(key, ofImage(jobId, imageId, {}, signal));
  return images.get(key);
}

function around(boxes) {
  if (boxes.length === 0) return null;
  const left = Math.min(...boxes.map(([x]) => x));
  const top = Math.min(...boxes.map(([, y]) => y));
  return [left, top, Math.max(...boxes.map(([x, , w]) => x + w)) - left, Math.max(...boxes.map(([, y, , h]) => y + h)) - top];
}
