/* COCO's compressed RLE <-> masks, the bytes of pycocotools' own (maskApi.c, rleToString).

   decode({size: [h, w], counts})   a Uint8Array of h·w, 0 or 1, column-major as pycocotools has it:
                                    the pixel (x, y) is at x·h + y. `counts` may be a list too.
   encode(mask, height, width)      {size, counts} of such a mask; any value but 0 is 1.
   area(rle)                        pixels of 1, without decoding.
   bounds(rle)                      [x, y, width, height] of the box round them; all 0 where none.
   holds(rle, x, y)                 whether the pixel that this place lies in is 1, without decoding.
   paint(rle, [r, g, b], alpha)     a canvas of w × h with the mask in this colour (alpha 0 to 255).
   outline(rle, [r, g, b])          a canvas of w × h with the mask's inner border alone. */

const runs = (counts) => (typeof counts === "string" ? fromText(counts) : counts);

function fromText(text) {
  const runs = [];
  for (let index = 0; index < text.length; ) {
    let value = 0;
    let shift = 0;
    let more = true;
    while (more) {
      const code = text.charCodeAt(index++) - 48;
      value |= (code & 0x1f) << shift;
      more = (code & 0x20) !== 0;
      shift += 5;
      if (!more && code & 0x10 && shift < 32) value |= -1 << shift;
    }
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

function toText(counts) {
  const codes = [];
  for (let i = 0; i < counts.length; i++) {
    let value = i > 2 ? counts[i] - counts[i - 2] : counts[i];
    for (let more = true; more; ) {
      let code = value & 0x1f;
      value >>= 5;
      more = code & 0x10 ? value !== -1 : value !== 0;
      if (more) code |= 0x20;
      codes.push(code + 48);
    }
  }
  let text = "";
  for (let index = 0; index < codes.length; index += 8192) text += String.fromCharCode(...codes.slice(index, index + 8192));
  return text;
}

export function decode(rle) {
  const [height, width] = rle.size;
  const mask = new Uint8Array(height * width);
  let index = 0;
  runs(rle.counts).forEach((run, i) => {
    if (i % 2) mask.fill(1, index, index + run);
    index += run;
  });
  return mask;
}

export function encode(mask, height, width) {
  const counts = [];
  let before = 0;
  let run = 0;
  for (let i = 0; i < mask.length; i++) {
    const now = mask[i] ? 1 : 0;
    if (now !== before) {
      counts.push(run);
      run = 0;
      before = now;
    }
    run++;
  }
  counts.push(run);
  return { size: [height, width], counts: toText(counts) };
}

export function area(rle) {
  return runs(rle.counts).reduce((sum, run, i) => (i % 2 ? sum + run : sum), 0);
}

export function holds(rle, x, y) {
  const [height, width] = rle.size;
  const [column, line] = [Math.floor(x), Math.floor(y)];
  if (column < 0 || line < 0 || column >= width || line >= height) return false;
  let left = column * height + line;
  const run = runs(rle.counts).findIndex((length) => (left -= length) < 0);
  return run % 2 === 1;
}

export function bounds(rle) {
  const [height] = rle.size;
  let [left, top, right, bottom] = [Infinity, Infinity, -1, -1];
  let index = 0;
  runs(rle.counts).forEach((run, i) => {
    if (i % 2 && run) {
      const last = index + run - 1;
      const [x0, x1] = [Math.floor(index / height), Math.floor(last / height)];
      left = Math.min(left, x0);
      right = Math.max(right, x1);
      top = Math.min(top, x1 > x0 ? 0 : index % height);
      bottom = Math.max(bottom, x1 > x0 ? height - 1 : last % height);
    }
    index += run;
  });
  return right < 0 ? [0, 0, 0, 0] : [left, top, right - left + 1, bottom - top + 1];
}

export function paint(rle, [r, g, b], alpha = 110) {
  return drawn(rle, (mask, index) => mask[index] === 1, (r | (g << 8) | (b << 16) | (alpha << 24)) >>> 0);
}

export function outline(rle, [r, g, b]) {
  const [height, width] = rle.size;
  const border = (mask, index, x, y) =>
    mask[index] === 1 &&
    (x === 0 || y === 0 || x === width - 1 || y === height - 1 || !mask[index - 1] || !mask[index + 1] || !mask[index - height] || !mask[index + height]);
  return drawn(rle, border, (r | (g << 8) | (b << 16) | (255 << 24)) >>> 0);
}

function drawn(rle, where, colour) {
  const [height, width] = rle.size;
  const mask = decode(rle);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const [x0, y0, w, h] = bounds(rle);
  if (!w) return canvas;
  const image = new ImageData(w, h);
  const pixels = new Uint32Array(image.data.buffer);
  for (let x = x0; x < x0 + w; x++) {
    for (let y = y0, index = x * height + y0; y < y0 + h; y++, index++) {
      if (where(mask, index, x, y)) pixels[(y - y0) * w + x - x0] = colour;
    }
  }
  canvas.getContext("2d").putImageData(image, x0, y0);
  return canvas;
}
