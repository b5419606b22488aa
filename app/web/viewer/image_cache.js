/* Photographs of a data set, and pieces of them on small canvases.

   photo(datasetId, imageId)         a promise of its ImageBitmap; the last few are kept
   small(datasetId, imageId)         a promise of {canvas, scale}: the same, at most SIDE pixels wide or
                                     high, for the grid; a few hundred are kept
   paintSmall(canvas, image, draw) the whole small image; draw(ctx, scale) in pixels of the photograph
   paintPiece(canvas, photo, box, draw)   a square round the box [x, y, w, h] of the photograph
   whenSeen(node, work, signal)      run work once, when the node comes near the screen */

import { bitmap } from "../core/api.js";

const SIDE = 560;
const photos = new Map();
const smalls = new Map();

function kept(store, most, key, make) {
  if (store.has(key)) {
    const found = store.get(key);
    store.delete(key);
    store.set(key, found); // the newest is last
    return found;
  }
  const made = make();
  store.set(key, made);
  made.catch(() => store.delete(key));
  if (store.size > most) store.delete(store.keys().next().value);
  return made;
}

export function photo(datasetId, imageId) {
  const path = `/datasets/${datasetId}/images/${imageId}`;
  return kept(photos, 10, path, () => bitmap(path));
}

export function small(datasetId, imageId) {
  const path = `/datasets/${datasetId}/images/${imageId}`;
  return kept(smalls, 200, path, async () => {
    const whole = await bitmap(path);
    const scale = Math.min(1, SIDE / Math.max(whole.width, whole.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(whole.width * scale));
    canvas.height = Math.max(1, Math.round(whole.height * scale));
    const ctx = canvas.getContext("2d");
    ctx.imageSmoothingQuality = "high";
    ctx.drawImage(whole, 0, 0, canvas.width, canvas.height);
    whole.close();
    return { canvas, scale };
  });
}

export function paintSmall(canvas, image, draw) {
  const grow = Math.max(1, Math.min(4, (320 * (devicePixelRatio || 1)) / image.canvas.width)); // lines stay crisp
  canvas.width = Math.round(image.canvas.width * grow);
  canvas.height = Math.round(image.canvas.height * grow);
  const ctx = canvas.getContext("2d");
  ctx.imageSmoothingQuality = "high";
  ctx.drawImage(image.canvas, 0, 0, canvas.width, canvas.height);
  const scale = image.scale * grow;
  ctx.setTransform(scale, 0, 0, scale, 0, 0);
  draw(ctx, scale);
}

export function paintPiece(canvas, whole, [x, y, w, h], draw, side = 240) {
  const pixels = Math.round(side * (devicePixelRatio || 1));
  const reach = Math.max(w, h, 12) * 1.5;
  const scale = pixels / reach;
  canvas.width = canvas.height = pixels;
  const ctx = canvas.getContext("2d");
  ctx.setTransform(scale, 0, 0, scale, (reach / 2 - x - w / 2) * scale, (reach / 2 - y - h / 2) * scale);
  ctx.imageSmoothingEnabled = scale < 3;
  ctx.drawImage(whole, 0, 0);
  draw(ctx, scale);
}

export function whenSeen(node, work, signal) {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    work();
  }, { rootMargin: "400px" });
  observer.observe(node);
  signal?.addEventListener("abort", () => observer.disconnect());
}
