/* Images as they are stored. A camera's EXIF may ask for them to be turned; points and masks are
   in the pixels of the file, so nothing here turns them. (For an <img>: CSS image-orientation: none.)

   decoded(blob)   an ImageBitmap; throws where the browser cannot read such an image. */

export async function decoded(blob) {
  return createImageBitmap(await withoutExif(blob), { imageOrientation: "none" });
}

const MOST = 1 << 20; // bytes of a JPEG before its pixels

/* Without what asks for a turn: browsers do not agree on what "none" means. */
async function withoutExif(blob) {
  const head = new DataView(await blob.slice(0, 12).arrayBuffer());
  if (head.byteLength < 12) return blob;
  if (head.getUint16(0) === 0xffd8) return jpegWithoutExif(blob);
  if (head.getUint32(0) === 0x89504e47) return pngWithoutExif(blob);
  if (head.getUint32(0) === 0x52494646 && head.getUint32(8) === 0x57454250) return webpWithoutExif(blob);
  return blob;
}

/* APP1 segments hold EXIF and XMP. */
async function jpegWithoutExif(blob) {
  const bytes = new DataView(await blob.slice(0, MOST).arrayBuffer());
  const kept = [blob.slice(0, 2)];
  let offset = 2;
  while (offset + 4 <= bytes.byteLength) {
    const marker = bytes.getUint16(offset);
    if (marker < 0xffe0 || marker > 0xffef) break; // APPn stand first; what follows stays
    const end = offset + 2 + bytes.getUint16(offset + 2);
    if (marker !== 0xffe1) kept.push(blob.slice(offset, end));
    offset = end;
  }
  return new Blob([...kept, blob.slice(offset)], { type: "image/jpeg" });
}

/* eXIf chunks stand before the pixels, or after them. */
async function pngWithoutExif(blob) {
  const bytes = new DataView(await blob.arrayBuffer());
  const kept = [blob.slice(0, 8)];
  for (let offset = 8; offset + 12 <= bytes.byteLength; ) {
    const end = offset + 12 + bytes.getUint32(offset);
    if (bytes.getUint32(offset + 4) !== 0x65584966) kept.push(blob.slice(offset, end));
    offset = end;
  }
  return new Blob(kept, { type: "image/png" });
}

/* The EXIF chunk stays under a name that nobody knows, so that no length changes. */
async function webpWithoutExif(blob) {
  const bytes = new DataView(await blob.arrayBuffer());
  for (let offset = 12; offset + 8 <= bytes.byteLength; ) {
    const length = bytes.getUint32(offset + 4, true);
    if (bytes.getUint32(offset) === 0x45584946) bytes.setUint32(offset, 0x78786966);
    offset += 8 + length + (length % 2);
  }
  return new Blob([bytes.buffer], { type: "image/webp" });
}
