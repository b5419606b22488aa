/* All data sets, the newest first, and the way to a new one. */

import { get } from "../core/api.js";
import { button, fill, h, icon, imageElement } from "../core/dom.js";
import { count, percent, when } from "../core/format.js";
import { load } from "../core/store.js";
import { hand, pickers } from "../core/file_drop.js";

const TONES = { ready: "good", importing: "busy", invalid: "bad" };
export const statusBadge = (status) => h("span", { class: "badge", "data-tone": TONES[status] }, status);

export async function show(root, params, { signal }) {
  const list = h("div", { class: "grid datasets" });
  let cursor = null;
  const more = button("More", () => next());
  async function next() {
    const page = await get("/datasets", { params: { cursor, limit: 48 }, signal });
    cursor = page.next;
    more.hidden = !cursor;
    list.append(...page.datasets.map((dataset) => card(dataset, signal)));
  }
  const take = (files) => {
    hand(files);
    location.hash = "#/datasets/new";
  };
  fill(root,
    h("div", { class: "row spread" }, h("h1", null, "Data sets"), h("a", { class: "button primary", href: "#/datasets/new" }, icon("add"), "New data set")),
    await draft(),
    pickers(take, { signal }),
    list, more);
  await next();
  if (!list.childElementCount) fill(list, h("p", { class: "empty" }, "Nothing here yet. Drop some images above, click once on each object, and train."));
}

async function draft() {
  const kept = await load("new");
  if (!kept?.state.images.length) return null;
  const points = Object.values(kept.state.points).flat().length;
  return h("p", { class: "note row spread" }, `A draft waits: ${count(kept.state.images.length, "image")}, ${count(points, "point")}.`, h("a", { class: "button small", href: "#/datasets/new" }, "Go on with it"));
}

function card(dataset, signal) {
  const facts = h("div", { class: "stack tight" });
  const peek = h("div", { class: "peek", "aria-hidden": "true" });
  const node = h("article", { class: "card stack" }, peek, facts);
  const draw = (entry, report) => {
    const progress = report?.progress;
    if (entry.status === "ready") look(entry.id, peek, signal);
    fill(facts,
      h("div", { class: "row spread nowrap" }, h("h2", null, h("a", { href: `#/datasets/${entry.id}` }, entry.name || "unnamed")), statusBadge(entry.status)),
      h("p", { class: "hint" }, count(entry.images, "image"), " · ", count(entry.annotations, "point"), entry.parent_id && " · a new version"),
      entry.status === "importing" && progress && [h("progress", { value: progress.progress, max: 1, "aria-label": `Import of ${entry.name}` }), h("small", { class: "number" }, `${progress.stage ?? "waiting"}, ${percent(progress.progress)}`)],
      entry.status === "invalid" && h("small", null, count(report?.errors?.length ?? 0, "fault"), ", see inside"),
      h("small", null, when(entry.created_at)));
  };
  draw(dataset);
  if (dataset.status !== "ready") follow(dataset.id, draw, signal);
  return node;
}

/* A few of its images. */
async function look(id, peek, signal) {
  const page = await get(`/datasets/${id}/images`, { params: { limit: 4 }, signal }).catch(() => null);
  if (page) fill(peek, page.images.map((image) => imageElement(`/datasets/${id}/images/${image.id}`, { class: "asis" })));
}

/* Ask now and then, until the import is over. */
export async function follow(id, draw, signal) {
  while (!signal.aborted) {
    try {
      const dataset = await get(`/datasets/${id}`, { signal });
      draw(dataset, dataset.report);
      if (dataset.status !== "importing") return dataset;
    } catch (error) {
      if (signal.aborted || error.status === 404) return null;
    }
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  return null;
}
