/* A new data set: drop pictures, click the points, create. The draft survives a reload. */

import { upload } from "../core/api.js";
import { clear, create, explain, sending } from "../editor/create_dataset.js";
import { announce, button, confirm, field, fill, h, problem, toast } from "../core/dom.js";
import { bytes, count } from "../core/format.js";
import { decoded } from "../viewer/pixels.js";
import { PointEditor } from "../editor/pointeditor.js";
import { Points } from "../editor/points.js";
import { drop, load, putFile, removeFile, save } from "../core/store.js";
import { handed, pickers, sorted } from "../core/file_drop.js";

const DRAFT = "new";

export async function show(root, params, { signal }) {
  const kept = await load(DRAFT);
  const points = restore(kept);
  const keeper = keep(points);
  const name = h("input", { id: "dataset-name", value: points.name, maxlength: 200, placeholder: "cells, week 12", oninput: () => ((points.name = name.value), points.changed()) });
  const editor = new PointEditor(points, { signal });
  const faults = h("div");
  const below = h("div", { class: "row spread" });
  const body = h("div", { class: "stack", hidden: true }, editor.element, below);
  const take = (files) => receive(files, points, root, signal);
  const place = pickers(take, { signal });
  const tell = () => {
    body.hidden = points.images.length === 0;
    place.classList.toggle("small", !body.hidden);
    ready.textContent = `${count(points.images.length, "picture")}, ${count(points.total, "point")}`;
    bare.textContent = barely(points);
  };
  const ready = h("strong", { class: "number" });
  const bare = h("small");
  const go = button("Create the data set", () => send(points, editor, faults, below, keeper), { class: "primary" });
  const over = button("Start over", async () => {
    if (!(await confirm("Throw this draft away?", "Its pictures and points are forgotten. This cannot be undone.", "Throw it away"))) return;
    keeper.stop();
    await drop(DRAFT);
    show(root, params, { signal });
  }, { class: "quiet" });
  fill(below, h("div", { class: "stack tight" }, ready, bare), h("div", { class: "row" }, over, go));
  points.addEventListener("change", tell, { signal });
  tell();
  fill(root,
    h("div", { class: "stack tight" }, h("h1", null, "New data set"), h("p", { class: "lead" }, "Click once on each object of each picture. One point an object is all that is needed.")),
    faults,
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

/* Writes the draft after each change; while one is being written, the next waits for it. */
export function keep(points, id = DRAFT) {
  let [dirty, busy, stopped] = [false, false, false];
  const known = new Set(points.images.map((image) => image.key));
  async function write() {
    dirty = true;
    if (busy) return;
    busy = true;
    while (dirty && !stopped) {
      dirty = false;
      for (const { key, blob } of points.images) {
        if (blob && !known.has(key)) await putFile(id, key, blob);
        known.add(key);
      }
      for (const key of [...known]) {
        if (points.images.some((image) => image.key === key)) continue;
        await removeFile(id, key);
        known.delete(key);
      }
      if (!stopped) await save(id, points.state());
    }
    busy = false;
  }
  points.addEventListener("change", write);
  return { stop: () => (stopped = true) };
}

const barely = (points) => {
  const bare = points.images.filter((image) => points.of(image.key).length === 0).length;
  return bare ? `${count(bare, "picture has", "pictures have")} no point yet; without one they teach nothing` : "";
};

/* Pictures go into the editor; a document with its pictures or an archive goes to the service as
   it is. */
async function receive(files, points, root, signal) {
  const { pictures, archives, documents, others } = sorted(files);
  if (documents.length || archives.length) return asItIs(documents, [...archives, ...pictures], points, root, signal);
  const refused = others.map((file) => file.name);
  let added = 0;
  for (const file of pictures) {
    const name = file.name.normalize("NFC");
    const same = points.images.find((image) => image.name === name);
    if (same?.blob?.size === file.size) continue; // dropped twice
    try {
      const { width, height } = await decoded(file);
      points.addImage({ key: crypto.randomUUID(), name: same ? another(name, points) : name, width, height, blob: file });
      added++;
    } catch {
      refused.push(name);
    }
  }
  if (added) announce(`${count(added, "picture")} added.`);
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
    return toast(documents.length > 1 ? "One annotation file at a time, please." : documents.length ? "Drop its pictures (or an archive of them) together with the annotation file." : "Drop the annotation file (COCO JSON) together with the archive.", "bad");
  }
  const [document] = documents;
  const total = images.reduce((sum, file) => sum + file.size, document.size);
  const name = h("input", { value: document.name.replace(/\.\w+$/, ""), maxlength: 200 });
  const box = h("div");
  const send = async () => {
    const form = new FormData();
    form.append("name", name.value);
    form.append("annotations", document, document.name);
    for (const file of images) form.append("images", file, file.name);
    const progress = sending("Upload");
    fill(box, progress.element);
    try {
      const { id } = await upload("/datasets", form, { onprogress: progress.tell, signal });
      location.hash = `#/datasets/${id}`;
    } catch (error) {
      fill(box, problem(error));
    }
  };
  fill(root, h("h1", null, "New data set"),
    h("div", { class: "card stack" },
      h("h2", null, document.name),
      h("p", null, `With ${count(images.length, "file")} of pictures, ${bytes(total)} in all. It is sent as it is; the service checks all of it and lists whatever is wrong.`),
      field("Name", name),
      h("div", { class: "row end" }, h("a", { class: "button quiet", href: "#/datasets" }, "Back"), button("Create the data set", send, { class: "primary" })), box));
}

async function send(points, editor, faults, below, keeper) {
  clear(faults, editor);
  if (!points.total) return toast("Click at least one point first.", "bad");
  const progress = sending("Upload of the pictures");
  below.before(progress.element);
  try {
    const { id } = await create(points, { onprogress: progress.tell });
    keeper.stop();
    await drop(DRAFT);
    toast("The data set is there.", "good");
    location.hash = `#/datasets/${id}`;
  } catch (error) {
    if (error.name === "AbortError") return;
    fill(faults, explain(error, points, editor));
    faults.scrollIntoView({ block: "nearest" });
    faults.querySelector("strong")?.focus();
  } finally {
    progress.element.remove();
  }
}
