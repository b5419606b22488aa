/* The points of a data set while they are edited: classes, images, points, and the way back.

   new Points({name, parent, classes, images, points, created})
     classes   [{id, name}]
     images    [{key, id?, name, width, height, blob | path}]; `key` is the page's own, `id` the user's
     points    {image key: [{id, category, x, y, mask, bbox, pointed}]}; x and y in pixels, centres at
               .5; mask: the confirmed one as RLE, bbox: the box as [x, y, width, height], where there
               is one; either goes when its point is moved out of it; pointed: false where x and y are
               the middle of the box, until the point is moved
   Every change tells "change" (an EventTarget). Lists are never changed in place.
     .of(key)                      the points of an image
     .add(key, category, x, y)     the new point
     .edit(key, id, {x, y, category}), .remove(key, id)
     .undo(), .redo()              the key of the image that changed; null where there is nothing
     .canUndo, .canRedo
     .addClass(name), .renameClass(id, name), .removeClass(id) (false while points are of it)
     .addImage(image), .removeImage(key)
     .total, .count(category)      points in all, or of a class
     .document()                   COCO-style JSON as POST /datasets takes it
     .place(pointer)               what an error's pointer in it means: {image, point, category}
     .state()                      what the constructor takes, to be kept in a draft; without blobs */

import { holds } from "../viewer/rle.js";

const STEPS = 500;

const surrounds = ([left, top, width, height], x, y) => x >= left && x <= left + width && y >= top && y <= top + height;

const kept = ({ mask, bbox, ...point }) => ({
  ...point,
  ...(mask && holds(mask, point.x, point.y) ? { mask } : {}),
  ...(bbox && surrounds(bbox, point.x, point.y) ? { bbox } : {}),
});

const moved = (before, after) => (before.x === after.x && before.y === after.y ? after : kept({ ...after, pointed: true }));

const record = ({ x, y, mask, bbox, pointed = true }) => ({ ...(pointed ? { point: [x, y] } : {}), ...(mask ? { mask } : {}), ...(bbox ? { bbox } : {}) });

export class Points extends EventTarget {
  constructor({ name = "", parent = null, classes = [], images = [], points = {}, touched = false } = {}) {
    super();
    Object.assign(this, { name, parent, classes, images, touched });
    this.points = new Map(Object.entries(points));
    this.past = [];
    this.future = [];
  }

  state() {
    const images = this.images.map(({ blob, ...rest }) => rest);
    const { name, parent, classes, touched } = this;
    return { name, parent, classes, images, touched, points: Object.fromEntries(this.points) };
  }

  changed() {
    this.touched = true;
    this.dispatchEvent(new Event("change"));
  }

  of(key) {
    return this.points.get(key) ?? [];
  }

  get total() {
    return this.images.reduce((sum, image) => sum + this.of(image.key).length, 0);
  }

  count(category) {
    return this.images.reduce((sum, image) => sum + this.of(image.key).filter((p) => p.category === category).length, 0);
  }

  #set(key, after) {
    this.past.push({ key, before: this.of(key), after });
    if (this.past.length > STEPS) this.past.shift();
    this.future = [];
    this.points.set(key, after);
    this.changed();
  }

  add(key, category, x, y) {
    const last = Math.max(0, ...[...this.points.values()].flatMap((list) => list.map((p) => p.id)));
    const point = { id: last + 1, category, x, y };
    this.#set(key, [...this.of(key), point]);
    return point;
  }

  edit(key, id, values) {
    this.#set(key, this.of(key).map((p) => (p.id === id ? moved(p, { ...p, ...values }) : p)));
  }

  remove(key, id) {
    this.#set(key, this.of(key).filter((p) => p.id !== id));
  }

  get canUndo() {
    return this.past.length > 0;
  }

  get canRedo() {
    return this.future.length > 0;
  }

  undo() {
    return this.#step(this.past, this.future, "before");
  }

  redo() {
    return this.#step(this.future, this.past, "after");
  }

  #step(from, to, which) {
    const step = from.pop();
    if (!step) return null;
    to.push(step);
    this.points.set(step.key, step[which]);
    this.changed();
    return step.key;
  }

  addClass(name) {
    const entry = { id: Math.max(0, ...this.classes.map((c) => c.id)) + 1, name };
    this.classes = [...this.classes, entry];
    this.changed();
    return entry;
  }

  renameClass(id, name) {
    this.classes = this.classes.map((c) => (c.id === id ? { ...c, name } : c));
    this.changed();
  }

  removeClass(id) {
    if (this.count(id)) return false;
    this.classes = this.classes.filter((c) => c.id !== id);
    this.#forget(() => true); // what is undone might be of this class
    return true;
  }

  addImage(image) {
    this.images = [...this.images, image];
    this.changed();
  }

  removeImage(key) {
    this.images = this.images.filter((image) => image.key !== key);
    this.points.delete(key);
    this.#forget((step) => step.key === key);
  }

  #forget(which) {
    this.past = this.past.filter((step) => !which(step));
    this.future = this.future.filter((step) => !which(step));
    this.changed();
  }

  document() {
    this.order = [];
    const ids = new Map(this.images.map((image, i) => [image.key, image.id ?? i + 1]));
    const annotations = this.images.flatMap((image) =>
      this.of(image.key).map((p) => {
        this.order.push({ image: image.key, point: p.id });
        return { id: p.id, image_id: ids.get(image.key), category_id: p.category, ...record(p) };
      }),
    );
    return {
      images: this.images.map((image) => ({ id: ids.get(image.key), file_name: image.name, width: image.width, height: image.height })),
      categories: this.classes.map(({ id, name }) => ({ id, name })),
      annotations,
    };
  }

  place(pointer) {
    const [, list, index] = pointer.split("/");
    if (list === "annotations") return this.order?.[Number(index)] ?? {};
    if (list === "images") return { image: this.images[Number(index)]?.key };
    if (list === "categories") return { category: this.classes[Number(index)]?.id };
    return {};
  }
}
