/* The service, as the page asks it. Paths are the service's own ("/datasets"); a prefix that it is
   served under is added here. `signal` is an AbortSignal everywhere.

   request(path, options)        fetch with the key; a Response that is ok, or an ApiError. On 401 the
                                 user is asked for a key, once, and the request is made again.
                                 options: method, json (a body), body, headers, params, signal.
   get(path, options)            the JSON of a GET.
   post, put, patch, remove      the JSON of the answer, null of a 204. patch(path, json, {headers}).
   all(path, name, options)      every item of a paged list, through its `next`: an async iterator.
                                 for await (const mask of all(`/jobs/${id}/pseudo-masks`, "annotations"))
   upload(path, form, options)   POST of a FormData; options.onprogress(sent, total) in bytes.
   blobUrl(path, options)        a blob: URL of an image (an <img> cannot send the key). Whoever asks
                                 revokes it. `image` is the same.
   bitmap(path, options)         an ImageBitmap, drawn on a canvas as it is.
   save(path, name)              let the browser save it as a file; saveBlob(blob, name) what is here.
   events(jobId, options)        the events of a job, from number `after` on, until its `end`: an async
                                 iterator over server-sent events that reconnects and misses none.
                                 options: after, signal, onlive(true or false) for the connection.
   ApiError                      status, title, message (readable), errors ([{part, pointer, detail,
                                 hint}]), problem (the whole document), retryAfter (seconds or null).
   key(), setKey(text)           the API key, in sessionStorage. askForKey is set by main.js. */

import { decoded } from "../viewer/pixels.js";

const BASE = new URL("../..", import.meta.url);
const STORED = "sapnet-key";

export class ApiError extends Error {
  constructor(status, document, retryAfter = null) {
    super(document.detail || document.title || `The service answered ${status}.`);
    this.name = "ApiError";
    this.status = status;
    this.title = document.title;
    this.errors = document.errors ?? [];
    this.problem = document;
    this.retryAfter = retryAfter;
  }
}

export const asks = { askForKey: async () => null };

export function key() {
  return sessionStorage.getItem(STORED);
}

export function setKey(text) {
  if (text) sessionStorage.setItem(STORED, text);
  else sessionStorage.removeItem(STORED);
}

export function address(path, params) {
  const url = new URL(path.replace(/^\//, ""), BASE);
  for (const [name, value] of Object.entries(params ?? {})) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

export async function request(path, options = {}) {
  const { params, json, headers, ...rest } = options;
  const used = key();
  const sent = new Headers(headers);
  if (!sent.has("Accept")) sent.set("Accept", "application/json");
  if (used) sent.set("Authorization", `Bearer ${used}`);
  if (json !== undefined) {
    sent.set("Content-Type", "application/json");
    rest.body = JSON.stringify(json);
  }
  let response;
  try {
    response = await fetch(address(path, params), { ...rest, headers: sent });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { title: "No answer", detail: "The service does not answer. Is it running?" });
  }
  if (response.ok) return response;
  if (response.status === 401 && (await otherKey(used, response))) return request(path, options);
  throw await errorOf(response);
}

let asking = null;

/* Whether there is another key than the one that was refused; many requests ask only once. */
async function otherKey(used, response) {
  if (key() !== used) return true;
  const document = await response.clone().json().catch(() => ({}));
  asking ??= asks.askForKey(document.detail ?? "", document.login).finally(() => (asking = null));
  const given = await asking;
  if (given) setKey(given);
  return Boolean(given);
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  return toError(response.status, text, response.headers.get("Retry-After"));
}

function toError(status, text, retryAfter) {
  let document = {};
  try {
    document = JSON.parse(text);
  } catch {
    document.detail = `The service answered ${status}, and nothing that can be read.`;
  }
  return new ApiError(status, document, retryAfter ? Number(retryAfter) : null);
}

async function jsonOf(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

export const get = (path, options) => jsonOf(path, options);
export const post = (path, json, options) => jsonOf(path, { ...options, method: "POST", json });
export const put = (path, json, options) => jsonOf(path, { ...options, method: "PUT", json });
export const patch = (path, json, options) => jsonOf(path, { ...options, method: "PATCH", json });
export const remove = (path, options) => jsonOf(path, { ...options, method: "DELETE" });

export async function* all(path, name, options = {}) {
  let cursor = null;
  do {
    const page = await get(path, { ...options, params: { ...options.params, cursor } });
    yield* page[name];
    cursor = page.next;
  } while (cursor);
}

/* fetch tells nothing of how much was sent; XMLHttpRequest does. */
export async function upload(path, form, options = {}) {
  const used = key();
  const answer = await new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", address(path));
    xhr.setRequestHeader("Accept", "application/json");
    if (used) xhr.setRequestHeader("Authorization", `Bearer ${used}`);
    for (const [name, value] of Object.entries(options.headers ?? {})) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => options.onprogress?.(event.loaded, event.total);
    xhr.onload = () => resolve(new Response(xhr.response || null, { status: xhr.status, headers: { "Retry-After": xhr.getResponseHeader("Retry-After") ?? "" } }));
    xhr.onerror = () => reject(new ApiError(0, { title: "No answer", detail: "The upload broke off. Nothing was kept; send it again." }));
    xhr.onabort = () => reject(new DOMException("The upload was stopped.", "AbortError"));
    options.signal?.addEventListener("abort", () => xhr.abort());
    xhr.send(form);
  });
  if (answer.ok) return answer.json();
  if (answer.status === 401 && (await otherKey(used, answer))) return upload(path, form, options);
  throw await errorOf(answer);
}

export async function blobUrl(path, options) {
  return URL.createObjectURL(await blob(path, options));
}

export const image = blobUrl;

export async function blob(path, options = {}) {
  const response = await request(path, { ...options, headers: { Accept: "image/*,*/*", ...options.headers } });
  return response.blob();
}

/* Pixels as they are stored: the points are in those, whatever EXIF says. */
export async function bitmap(path, options) {
  return decoded(await blob(path, options));
}

export async function save(path, name) {
  const link = document.createElement("a");
  link.href = key() ? await blobUrl(path, { headers: { Accept: "*/*" } }) : address(path);
  link.download = name ?? "";
  link.click();
  if (key()) setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export function saveBlob(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function* events(jobId, { after = 0, signal, onlive } = {}) {
  let wait = 1_000;
  while (!signal?.aborted) {
    try {
      const headers = { Accept: "text/event-stream", ...(after ? { "Last-Event-ID": String(after) } : {}) };
      const response = await request(`/jobs/${jobId}/events`, { headers, signal });
      if (response.status === 204) return;
      onlive?.(true);
      for await (const message of messages(response.body)) {
        wait = 1_000;
        after = Number(message.id);
        const event = JSON.parse(message.data);
        yield event;
        if (event.type === "end") return;
      }
    } catch (error) {
      if (signal?.aborted) return;
      if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
    }
    onlive?.(false);
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 15_000);
  }
}

/* The messages of a text/event-stream: {id, data}. Comments and `retry` alone are none. */
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const message = {};
        for (const line of block.split("\n")) {
          const [, name, text] = /^(\w+): ?(.*)$/.exec(line) ?? [];
          if (name) message[name] = name === "data" && message.data !== undefined ? `${message.data}\n${text}` : text;
        }
        if (message.data !== undefined) yield message;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
