/* What a job delivered, as the views of results, review and comparison ask for it.

   DELIVERING                  kinds of jobs that deliver masks
   openJob(id, signal)         {job, dataset, classes} of a job that has masks; classes is
                               colours.js's byClass. Throws an ApiError that says where it stands.
   names(datasetId, signal)    resolves to a Map image id -> file name of the first 5,000; it has what
                               could be had, and never fails
   worstFirst(jobId, params, signal)  async iterator of pages {masks, counts, next}; params: status,
                               category_id, max_quality, image_id, limit
   imageByImage(job, params, signal)  the same of open masks, image by image: those first of which most
                               is to be learned, as GET /datasets/{id}/next has them
   ofImage(jobId, imageId, params, signal)    all of the masks of an image
   decide(mask, decision)      PATCH with If-Match; the mask as it is then. An ApiError of status 412
                               where somebody else was faster. Leaving the page does not stop it
   reload(mask, signal)        the mask as the service has it now
   suggest(mask, question, signal)    the mask for these points: an RLE
   STATUS                      [value, label, tone] of each status of a mask
   badge(mask)                 its status as an element
   quality(value)              "0.43"; className(classes, mask) the name of its class */

import { all, ApiError, get, patch, post } from "../core/api.js";
import { byClass } from "./colours.js";
import { h } from "../core/dom.js";

export const STATUS = [
  ["open", "open", null],
  ["accepted", "accepted", "good"],
  ["corrected", "corrected", "busy"],
  ["rejected", "rejected", "bad"],
];
export const DELIVERING = ["train", "label"]; // kinds of jobs with masks to review
const SUCCESSFUL = ["succeeded", "succeeded_with_warnings"];

export async function openJob(id, signal) {
  const job = await get(`/jobs/${id}`, { signal });
  const delivers = DELIVERING.includes(job.kind);
  if (!delivers || !SUCCESSFUL.includes(job.state)) {
    const detail = delivers ? `The job is ${job.state.replaceAll("_", " ")}.` : `The job delivers no masks: its kind is ${job.kind}.`;
    throw new ApiError(409, { title: "There are no results", detail });
  }
  const dataset = await get(`/datasets/${job.dataset_id}`, { signal });
  return { job, dataset, classes: byClass(dataset.categories) };
}

export async function names(datasetId, signal) {
  const names = new Map();
  try {
    for await (const image of all(`/datasets/${datasetId}/images`, "images", { params: { limit: 1000 }, signal })) {
      names.set(image.id, image.file_name);
      if (names.size >= 5000) break;
    }
  } catch {
    // names are a courtesy: an image has its number
  }
  return names;
}

export async function* worstFirst(jobId, params, signal) {
  let cursor = null;
  do {
    const page = await get(`/jobs/${jobId}/review`, { params: { limit: 100, ...params, cursor }, signal });
    yield page;
    cursor = page.next;
  } while (cursor);
}

/* Decisions change which images are left: the ranking is asked for anew after each 20 of it. */
export async function* imageByImage(job, params, signal) {
  const visited = new Set();
  let fresh;
  do {
    fresh = await unvisited(job, visited, signal);
    for (const id of fresh) {
      visited.add(id);
      for await (const page of worstFirst(job.id, { ...params, image_id: id }, signal)) yield { ...page, next: page.next ?? "another image" };
    }
  } while (fresh.length > 0);
  yield { ...(await get(`/jobs/${job.id}/review`, { params: { ...params, limit: 1 }, signal })), masks: [], next: null };
}

async function unvisited(job, visited, signal) {
  const fresh = [];
  const params = { job: job.id, images: "open", limit: 20 + Math.min(visited.size, 500) };
  for await (const { image_id: id } of all(`/datasets/${job.dataset_id}/next`, "images", { params, signal })) {
    if (!visited.has(id)) fresh.push(id);
    if (fresh.length >= 20) break;
  }
  return fresh;
}

export async function ofImage(jobId, imageId, params, signal) {
  const masks = [];
  for await (const page of worstFirst(jobId, { ...params, image_id: imageId, limit: 1000 }, signal)) masks.push(...page.masks);
  return masks;
}

export function decide(mask, decision) {
  const headers = { "If-Match": `"${mask.revision}"` };
  return patch(`/masks/${mask.mask_id}`, decision, { headers });
}

export const reload = (mask, signal) => get(`/masks/${mask.mask_id ?? mask}`, { signal });

export async function suggest(mask, question, signal) {
  return (await post(`/masks/${mask.mask_id}/suggest`, question, { signal })).segmentation;
}

export function badge(mask) {
  const [, label, tone] = STATUS.find(([value]) => value === mask.status) ?? STATUS[0];
  return h("span", { class: "badge", "data-tone": tone }, label);
}

export const quality = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

export const className = (classes, mask) => classes.get(mask.category_id)?.name ?? `class ${mask.category_id}`;
