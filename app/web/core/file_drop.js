/* Files that are dropped or picked, folders too.

   pickers(take, {signal, text, accept, multiple})   a place to drop files, with a button; take([File])
                                   gets them
   hand(files), handed()           carry files from one view to the next
   sorted(files)                   {images, archives, documents, others} */

import { button, h, icon } from "./dom.js";

const IMAGE = /\.(jpe?g|png|webp|bmp|tiff?)$/i;
const ARCHIVE = /\.(zip|tar|tgz|tar\.gz)$/i;

let carried = [];

export const hand = (files) => (carried = files);

export function handed() {
  const files = carried;
  carried = [];
  return files;
}

export function sorted(files) {
  const groups = { images: [], archives: [], documents: [], others: [] };
  for (const file of files) {
    const { name } = file;
    if (IMAGE.test(name)) groups.images.push(file);
    else if (ARCHIVE.test(name)) groups.archives.push(file);
    else if (/\.(json|xml)$/i.test(name)) groups.documents.push(file);
    else groups.others.push(file);
  }
  return groups;
}

const ANY = "image/*,.json,.xml,.zip,.tar,.tgz,.gz";

export function pickers(take, { signal, text = "Drop images here, or a COCO file with its images, or ", accept = ANY, multiple = true } = {}) {
  const input = h("input", { type: "file", multiple, hidden: true, accept, "aria-label": text.replace(/,? or $/, "") });
  input.addEventListener("change", () => {
    if (input.files.length) take([...input.files]);
    input.value = "";
  });
  const node = h("div", { class: "drop" }, icon("image"),
    h("p", null, text),
    button(multiple ? "Choose files" : "Choose a file", () => input.click()), input);
  let depth = 0;
  const over = (event, by) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    depth = Math.max(0, depth + by);
    node.classList.toggle("over", depth > 0);
  };
  addEventListener("dragenter", (event) => over(event, 1), { signal });
  addEventListener("dragleave", (event) => over(event, -1), { signal });
  addEventListener("dragover", (event) => over(event, 0), { signal });
  addEventListener("drop", async (event) => {
    over(event, -depth);
    if (!event.dataTransfer?.types.includes("Files")) return;
    take(await dropped(event.dataTransfer));
  }, { signal });
  return node;
}

/* All files of a drop, those of folders too. Entries must be asked for before the first await. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  const collected = [];
  for (const entry of entries) if (entry) await walk(entry, collected);
  return collected;
}

async function walk(entry, collected) {
  if (entry.isFile) return void collected.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
  const reader = entry.createReader();
  for (;;) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) return;
    for (const child of batch) if (!child.name.startsWith(".")) await walk(child, collected);
  }
}
