/* Pictures as they are stored. A camera's EXIF may ask for them to be turned; points and masks are
   in the pixels of the file, so nothing here turns them. (For an <img>: CSS image-orientation: none.)

   decoded(blob)   an ImageBitmap; throws where the browser cannot read such a picture. */

export async function decoded(blob) {
  return createImageBitmap(await withoutExif(blob), { imageOrientation: "none" });
}

/* A JPEG without its APP1 segments, which hold EXIF: browsers do not agree on what "none" means. */
async function withoutExif(blob) {
  const head = new DataView(await blob.slice(0, 4).arrayBuffer());
  if (head.byteLength < 4 || head.getUint16(0) !== 0xffd8) return blob;
  const bytes = new DataView(await blob.slice(0, 1 << 20).arrayBuffer());
  const kept = [blob.slice(0, 2)];
  let at = 2;
  while (at + 4 <= bytes.byteLength) {
    const marker = bytes.getUint16(at);
    if (marker < 0xffe0 || marker > 0xffef) break; // APPn stand first; what follows stays
    const end = at + 2 + bytes.getUint16(at + 2);
    if (marker !== 0xffe1) kept.push(blob.slice(at, end));
    at = end;
  }
  return new Blob([...kept, blob.slice(at)], { type: "image/jpeg" });
}
