/* A draft becomes a data set of the service.

   creator({points, id, editor, name, keeper, signal})    {create(text), busy(), faults, progress}
       create() sends what is there now, forgets the draft `id`, says the text and shows the new data
       set; editor and name cannot be changed meanwhile, and busy() is true. faults, progress: boxes for
       the view; in the first every error is listed, with a button that goes to what it concerns.
       Leaving the view asks while it is sent, and stops it; it asks too where keeper has lost something
   sending(label)                               {element, report(sent, total)}: how far an upload is */

import { upload } from "../core/api.js";
import { fill, h, icon, problem, toast } from "../core/dom.js";
import { bytes, percent } from "../core/format.js";
import { drop } from "../core/store.js";
import { guard } from "../core/unsaved.js";

export function creator({ points, id, editor, name, keeper, signal }) {
  const [faults, progress] = [h("div"), h("div")];
  let sends = false;
  const lost = () => (sends ? "The images are still being sent. Leaving stops that; the draft stays." : points.touched ? keeper.lost() : null);
  guard(({ closing }) => (closing ? lost() : keeper.written().then(lost)), signal);

  const hold = (creating) => {
    sends = creating;
    editor.element.inert = name.disabled = creating; // what is changed now would not be in it
  };

  async function create(message) {
    fill(faults);
    editor.faults(new Map());
    const bar = sending("Upload");
    fill(progress, bar.element);
    hold(true);
    try {
      const made = await post(points, { onprogress: bar.report, signal });
      await keeper.stop();
      await drop(id);
      toast(message, "good");
      hold(false);
      if (!signal.aborted) location.hash = `#/datasets/${made.id}`;
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(faults, explain(error, points, editor));
      faults.scrollIntoView({ block: "nearest" });
      faults.querySelector("strong")?.focus();
    } finally {
      hold(false);
      fill(progress);
    }
  }
  return { faults, progress, create, busy: () => sends };
}

async function post(points, options) {
  const form = new FormData();
  if (points.name) form.append("name", points.name);
  if (points.parent) form.append("parent", points.parent);
  const text = JSON.stringify(points.document());
  form.append("annotations", new Blob([text], { type: "application/json" }), "points.json");
  for (const { blob, name } of points.images) if (blob) form.append("images", blob, name);
  return upload("/datasets", form, options);
}

export function sending(label) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": label });
  const text = h("small", { class: "number" });
  const report = (sent, total) => {
    bar.value = total ? sent / total : 0;
    text.textContent = sent < total ? `${bytes(sent)} of ${bytes(total)}, ${percent(sent / total)}` : "The service checks what was sent …";
  };
  return { element: h("div", { class: "stack tight" }, bar, text), report };
}

const describe = (points, place) => {
  if (place.image) {
    const image = points.images.find((entry) => entry.key === place.image);
    return place.point ? `a point on ${image?.name}` : image?.name;
  }
  return place.category !== undefined ? `class ${points.classes.find((c) => c.id === place.category)?.name}` : null;
};

/* The box that lists every error, each with a button that goes to what it concerns; marks those in the
   editor. */
function explain(error, points, editor) {
  if (!error.errors?.length) return problem(error);
  const wrong = new Map();
  const mark = (key, id) => wrong.set(key, (wrong.get(key) ?? new Set()).add(id));
  const items = error.errors.map((fault) => {
    const place = fault.part === "annotations" ? points.place(fault.pointer) : byName(points, fault);
    if (place.image) mark(place.image, place.point ?? "");
    if (place.category !== undefined) mark("classes", place.category);
    const name = describe(points, place);
    const go = async () => {
      if (place.category !== undefined) return editor.element.querySelector(`[data-class="${place.category}"]`)?.focus();
      if (!place.image) return document.getElementById("dataset-name")?.focus();
      await editor.go(place.image);
      if (place.point) editor.select(place.point);
      editor.viewer.canvas.focus();
    };
    const shown = name || fault.part === "name";
    return h("li", null, h("span", null, name && h("strong", null, name, ": "), fault.detail),
      fault.hint && h("small", { class: "hint" }, fault.hint),
      shown && h("button", { type: "button", class: "small", onclick: go }, icon("eye"), "Show"));
  });
  editor.faults(wrong);
  const first = h("strong", { tabindex: "-1" }, `${error.errors.length === 1 ? "One thing is" : `${error.errors.length} things are`} wrong. Nothing was kept, and nothing here is lost.`);
  return h("div", { class: "problem faults", role: "alert" }, first, h("ul", null, items));
}

/* Errors of files name them. */
function byName(points, fault) {
  if (fault.part !== "images") return {};
  const image = points.images.find(({ name }) => fault.detail.includes(`'${name}'`));
  return image ? { image: image.key } : {};
}
