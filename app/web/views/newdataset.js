/* A new data set: drop images, click the points, create. The draft survives a reload. */

import { upload } from "../core/api.js";
import { creator, sending } from "../editor/create_dataset.js";
import { announce, button, confirm, field, fill, h, problem, toast } from "../core/dom.js";
import { bytes, count } from "../core/format.js";
import { decoded } from "../viewer/pixels.js";
import { PointEditor } from "../editor/pointeditor.js";
import { Points } from "../editor/points.js";
import { drop, autosave, load } from "../core/store.js";
import { handed, pickers, sorted } from "../core/file_drop.js";
import { guard } from "../core/unsaved.js";

const DRAFT = "new";

export async function show(root, params, { signal }) {
  const kept = await load(DRAFT);
  const points = restore(kept);
  if (signal.aborted) return;
  const keeper = autosave(points, DRAFT);
  const name = h("input", { id: "dataset-name", value: points.name, maxlength: 200, placeholder: "cells, week 12", oninput: () => ((points.name = name.value), points.changed()) });
  const editor = new PointEditor(points, { signal });
  const making = creator({ points, id: DRAFT, editor, name, keeper, signal });
  const below = h("div", { class: "row spread" });
  const body = h("div", { class: "stack", hidden: true }, editor.element, making.progress, below);
  const take = (files) => (making.busy() ? toast("The data set is being made.", "bad") : receive(files, points, root, signal));
  const place = pickers(take, { signal });
  const update = () => {
    body.hidden = points.images.length === 0;
    place.classList.toggle("small", !body.hidden);
    ready.textContent = `${count(points.images.length, "image")}, ${count(points.total, "point")}`;
    bare.textContent = barely(points);
  };
  const ready = h("strong", { class: "number" });
  const bare = h("small");
  const go = button("Create the data set", () => (points.total ? making.create("The data set is there.") : toast("Click at least one point first.", "bad")), { class: "primary" });
  const over = button("Start over", async () => {
    if (making.busy() || !(await confirm("Throw this draft away?", "Its images and points are forgotten. This cannot be undone.", "Throw it away"))) return;
    await keeper.stop();
    await drop(DRAFT);
    if (!signal.aborted) dispatchEvent(new Event("showagain"));
  }, { class: "quiet" });
  fill(below, h("div", { class: "stack tight" }, ready, bare), h("div", { class: "row" }, over, go));
  points.addEventListener("change", update, { signal });
  update();
  fill(root,
    h("div", { class: "stack tight" }, h("h1", null, "New data set"), h("p", { class: "lead" }, "Click once on each object of each image. One point an object is all that is needed.")),
    making.faults,
    h("div", { class: "row newhead" }, field("Name", name), place),
    body);
  const carried = handed();
  if (carried.length) await take(carried);
  if (kept?.state.images.length) announce("Your draft is here again.");
}

function restore(kept) {
  if (!kept) return new Points({ classes: [{ id: 1, name: "object" }] });
  const images = kept.state.images.filter((image) => kept.blobs.has(image.key));
  return new Points({ ...kept.state, images: images.map((image) => ({ ...image, blob: kept.blobs.get(image.key) })) });
}

const barely = (points) => {
  const bare = points.images.filter((image) => points.of(image.key).length === 0).length;
  return bare ? `${count(bare, "image has", "images have")} no point yet; without one they teach nothing` : "";
};

/* Images go into the editor; a document with its images or an archive goes to the service as
   it is. */
async function receive(files, points, root, signal) {
  const { images, archives, documents, others } = sorted(files);
  if (documents.length || archives.length) return asItIs(documents, [...archives, ...images], points, root, signal);
  const refused = others.map((file) => file.name);
  let added = 0;
  for (const file of images) {
    const name = file.name.normalize("NFC");
    const same = points.images.find((image) => image.name === name);
    if (same?.blob?.size === file.size) continue; // dropped twice
    try {
      const { width, height } = await decoded(file);
      if (signal.aborted) return;
      points.addImage({ key: crypto.randomUUID(), name: same ? another(name, points) : name, width, height, blob: file });
      added++;
    } catch {
      refused.push(name);
    }
  }
  if (added) announce(`${count(added, "image")} added.`);
  if (refused.length) toast(`Not taken: ${refused.slice(0, 5).join(", ")}${refused.length > 5 ? " …" : ""}. This browser cannot show them; JPEG, PNG and WebP always work.`, "bad");
}

function another(name, points) {
  const [, stem, end] = /^(.*?)(\.[^.]*)?$/.exec(name);
  for (let n = 2; ; n++) {
    const tried = `${stem} (${n})${end ?? ""}`;
    if (!points.images.some((image) => image.name === tried)) return tried;
  }
}

function asItIs(documents, images, points, root, signal) {
  if (documents.length !== 1 || !images.length) {
    return toast(documents.length > 1 ? "One annotation file at a time, please." : documents.length ? "Drop its images (or an archive of them) together with the annotation file." : "Drop the annotation file (COCO JSON) together with the archive.", "bad");
  }
  const [document] = documents;
  const total = images.reduce((sum, file) => sum + file.size, document.size);
  const name = h("input", { value: document.name.replace(/\.\w+$/, ""), maxlength: 200 });
  const box = h("div");
  let sends = false;
  guard(() => (sends ? "The files are still being sent. Leaving stops that." : null), signal);
  const send = async () => {
    const form = new FormData();
    form.append("name", name.value);
    form.append("annotations", document, document.name);
    for (const file of images) form.append("images", file, file.name);
    const progress = sending("Upload");
    fill(box, progress.element);
    sends = true;
    try {
      const { id } = await upload("/datasets", form, { onprogress: progress.report, signal });
      sends = false;
      if (!signal.aborted) location.hash = `#/datasets/${id}`;
    } catch (error) {
      if (!signal.aborted) fill(box, problem(error));
    } finally {
      sends = false;
    }
  };
  fill(root, h("h1", null, "New data set"),
    h("div", { class: "card stack" },
      h("h2", null, document.name),
      h("p", null, `With ${count(images.length, "file")} of images, ${bytes(total)} in all. It is sent as it is; the service checks all of it and lists whatever is wrong.`),
      field("Name", name),
      h("div", { class: "row end" }, h("a", { class: "button quiet", href: "#/datasets" }, "Back"), button("Create the data set", send, { class: "primary" })), box));
}
