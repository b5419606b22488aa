/* The points of a data set, edited: what comes of it is a new version, and the old one stays.

   ?image=ID begins with that image, &point=ID with a point of it. */

import { all, get } from "../core/api.js";
import { creator } from "../editor/create_dataset.js";
import { button, confirm, field, fill, h } from "../core/dom.js";
import { count } from "../core/format.js";
import { PointEditor } from "../editor/pointeditor.js";
import { Points } from "../editor/points.js";
import { drop, autosave, load } from "../core/store.js";

export async function show(root, params, { signal }) {
  const draft = `edit:${params.id}`;
  const [dataset, kept] = await Promise.all([get(`/datasets/${params.id}`, { signal }), load(draft)]);
  const points = kept ? new Points(kept.state) : await fromService(dataset, signal);
  const keeper = autosave(points, draft);
  const name = h("input", { id: "dataset-name", value: points.name, maxlength: 200, oninput: () => ((points.name = name.value), points.changed()) });
  const editor = new PointEditor(points, { signal, fixed: true, ranked: ranking(dataset, points, signal) });
  const making = creator({ points, id: draft, editor, name, keeper, signal });
  const total = h("strong", { class: "number" });
  const update = () => (total.textContent = `${count(points.images.length, "image")}, ${count(points.total, "point")}`);
  points.addEventListener("change", update, { signal });
  update();
  const asked = params.query.get("image");
  if (asked) editor.go(asked);
  if (params.query.has("point")) editor.select(Number(params.query.get("point")));
  const forget = async () => {
    if (making.busy()) return;
    if (points.touched && !(await confirm("Drop the changes?", "The data set stays as it was.", "Drop them"))) return;
    await keeper.stop();
    await drop(draft);
    if (!signal.aborted) location.hash = `#/datasets/${params.id}`;
  };
  fill(root,
    h("div", { class: "stack tight" },
      h("h1", null, `Points of ${dataset.name}`),
      h("p", { class: "lead" }, "What you save is a new version; this data set, and what was trained on it, stay as they are.")),
    kept && h("p", { class: "note" }, "These are the changes that you had begun."),
    making.faults, field("Name of the new version", name), editor.element, making.progress,
    h("div", { class: "row spread" }, total, h("div", { class: "row" }, button("Drop the changes", forget, { class: "quiet" }), button("Save as a new version", () => making.create("The new version is there."), { class: "primary" }))));
}

/* One request: points that are clicked meanwhile are the draft's, of which the service knows nothing. */
function ranking(dataset, points, signal) {
  let keys = null;
  return () => (keys ??= get(`/datasets/${dataset.id}/next`, { params: { limit: 1000 }, signal }).then(
    ({ images }) => {
      const keyOf = new Map(points.images.map(({ id, key }) => [id, key]));
      return images.map((image) => keyOf.get(image.image_id)).filter((key) => key !== undefined);
    },
    (error) => {
      keys = null; // asked again when it is needed
      throw error;
    },
  ));
}

async function fromService(dataset, signal) {
  const [images, points, keyOf] = [[], {}, new Map()];
  for await (const image of all(`/datasets/${dataset.id}/images`, "images", { params: { limit: 500 }, signal })) {
    const key = String(image.id);
    keyOf.set(image.id, key);
    images.push({ key, id: image.id, name: image.file_name, width: image.width, height: image.height, path: `/datasets/${dataset.id}/images/${image.id}` });
  }
  for await (const a of all(`/datasets/${dataset.id}/annotations`, "annotations", { params: { limit: 1000 }, signal })) {
    const [x, y] = a.point;
    (points[keyOf.get(a.image_id)] ??= []).push({ id: a.id, category: a.category_id, x, y, ...(a.mask ? { mask: a.mask } : {}), ...(a.bbox ? { bbox: a.bbox, pointed: a.pointed } : {}) });
  }
  const classes = dataset.categories.map(({ id, name }) => ({ id, name }));
  return new Points({ name: `${dataset.name}, corrected`, parent: dataset.id, classes, images, points });
}
