/* All jobs, the newest first. */

import { get } from "../core/api.js";
import { button, fill, h } from "../core/dom.js";
import { percent, when } from "../core/format.js";

export const TONES = { queued: "busy", running: "busy", cancelling: "warn", succeeded: "good", succeeded_with_warnings: "good", failed: "bad", cancelled: "warn" };

export const inWords = (state) => state.replaceAll("_", " ");
export const successful = (state) => state.startsWith("succeeded");
export const stateBadge = (state) => h("span", { class: "badge", "data-tone": TONES[state] }, inWords(state));

export async function show(root, params, { signal }) {
  const list = h("div", { class: "stack" });
  let cursor = null;
  const more = button("More", () => load());
  async function load() {
    const page = await get("/jobs", { params: { cursor, limit: 50 }, signal });
    cursor = page.next;
    more.hidden = !cursor;
    list.append(...page.jobs.map((job) => row(job, names.get(job.dataset_id))));
  }
  const { datasets } = await get("/datasets", { params: { limit: 1000 }, signal });
  const names = new Map(datasets.map(({ id, name }) => [id, name]));
  fill(root, h("h1", null, "Jobs"), h("p", { class: "lead" }, "Trainings, imports and predictions, the newest first."), list, more);
  await load();
  if (!list.childElementCount) fill(list, h("p", { class: "empty card" }, "No job yet. Open a data set and press Train."));
}

/* A job of a list; name: of its data set, where that is not plain anyway. */
export function row(job, name) {
  const what = job.kind === "train" ? `${job.method} · ${job.preset}` : job.kind;
  const running = ["queued", "running", "cancelling"].includes(job.state);
  return h("article", { class: "card row spread" },
    h("div", { class: "stack tight" },
      h("h2", null, h("a", { href: `#/jobs/${job.id}` }, name ?? what)),
      h("small", null, name ? `${what} · ` : "", when(job.created_at), job.kind === "train" ? ` · seed ${job.seed}` : "")),
    running && h("span", { class: "number" }, job.stage ? `${job.stage}, ` : "", percent(job.progress)),
    stateBadge(job.state));
}
