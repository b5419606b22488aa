/* The health of a data set: how its objects are spread over the classes, and what may be wrong.

   health(dataset, jobs, signal)   a section that fills itself; masks of the newest training of `jobs`
                                   tell which points may be wrong */

import { get } from "../core/api.js";
import { button, fill, h, imageElement } from "../core/dom.js";
import { count, percent } from "../core/format.js";
import { byClass } from "../viewer/colours.js";
import { successful } from "./jobs.js";

const AGAIN = 3_000; // milliseconds, while a worker still compares images
const SHOWN = 6;

export function health(dataset, jobs, signal) {
  const body = h("div", { class: "stack", "aria-busy": "true" }, h("p", { class: "hint" }, "Looking …"));
  const job = jobs.find((one) => one.kind === "train" && successful(one.state))?.id;
  const refresh = async () => {
    try {
      const found = await get(`/datasets/${dataset.id}/statistics`, { params: { job, examples: 50 }, signal });
      fill(body, content(dataset, found));
      body.removeAttribute("aria-busy");
      if (!found.complete) setTimeout(() => signal.aborted || refresh(), AGAIN);
    } catch (error) {
      if (!signal.aborted) fill(body, h("p", { class: "note" }, error.message));
    }
  };
  refresh();
  return h("section", { class: "card stack health", "aria-labelledby": "health" }, h("h2", { id: "health" }, "Health"), body);
}

function content(dataset, found) {
  const { objects_per_image: objects, findings } = found;
  return [
    found.classes.length > 1 && balance(dataset, found.classes),
    objects && h("p", { class: "hint" }, `${objects.median} objects an image (median; ${objects.min} to ${objects.max})`),
    findings.length ? h("ul", { class: "plain stack" }, findings.map((finding) => h("li", null, one(dataset, finding)))) : h("p", null, "Nothing looks wrong."),
    !found.complete && h("p", { class: "hint", role: "status" }, `${found.described} of ${count(found.images, "image")} compared with each other so far.`),
  ];
}

function balance(dataset, classes) {
  const colours = byClass(dataset.categories);
  const most = Math.max(1, ...classes.map((c) => c.annotations));
  return h("ul", { class: "plain stack tight balance", "aria-label": "Share of each class" }, classes.slice(0, 20).map((c) => {
    const bar = h("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--share", c.annotations / most);
    bar.style.setProperty("--swatch", colours.get(c.id)?.css ?? "currentColor");
    return h("li", null, h("span", { class: "name" }, c.name), bar, h("span", { class: "number hint" }, percent(c.share)));
  }));
}

function one(dataset, finding) {
  const list = h("ul", { class: "row plain examples" });
  const show = (most) => fill(list, finding.examples.slice(0, most).flatMap((example) => thumbs(dataset, example)));
  show(SHOWN);
  const more = finding.examples.length > SHOWN && button("More", () => (show(finding.examples.length), more.remove()), { class: "quiet small", "aria-label": `More: ${finding.detail}` });
  return h("div", { class: "stack tight", "data-kind": finding.kind }, h("p", null, finding.detail), finding.examples.length > 0 && list, more);
}

/* An image with a point; of a group of copies its first three. */
function thumbs(dataset, example) {
  return [example.image_id, ...example.other_image_ids.slice(0, 2)].map((id) => {
    const point = example.annotation_id === null ? "" : `&point=${example.annotation_id}`;
    const what = id === example.image_id ? example.file_name : `image ${id}, like ${example.file_name}`;
    const label = example.point ? `${what}, point at ${example.point.map(Math.round).join(", ")}` : what;
    return h("li", null, h("a", { class: "thumb", href: `#/datasets/${dataset.id}/edit?image=${id}${point}`, "aria-label": label, title: label }, imageElement(`/datasets/${dataset.id}/images/${id}`, { class: "asis" })));
  });
}
