/* The queue of a review: masks as they are fetched, the place in it, and what was decided.

   new Queue(pages, signal)              pages: an async iterator as masks.js's worstFirst gives it
     .masks, .index, .counts          counts {open, accepted, corrected, rejected} of the whole job
     .current                         the mask at the place, or undefined behind the last
     await .begin(maskId)             fetch the first; the named mask, if any, comes first of all
     await .reach(index)              the nearest place to it that there is, once its mask is fetched;
                                      behind the last is one too. .index is set by whoever shows it
     .place(mask)                     index of the mask of this id
     .replace(mask)                   what the service says of a mask now; counts follow
     .last                            the mask that was decided last; undefined where none was */

import { reload } from "../viewer/masks.js";

const AHEAD = 8;

export class Queue {
  #pages;
  #done = false;
  #fetching = null;
  #decided = [];

  constructor(pages, signal) {
    this.masks = [];
    this.index = 0;
    this.counts = { open: 0, accepted: 0, corrected: 0, rejected: 0 };
    this.signal = signal;
    this.#pages = pages;
  }

  get current() {
    return this.masks[this.index];
  }

  async begin(maskId) {
    if (maskId) this.masks.push(await reload(maskId, this.signal));
    await this.#fetch();
  }

  async reach(index) {
    if (index >= this.masks.length) await this.#fetch();
    else if (index > this.masks.length - AHEAD) this.#fetch().catch(() => {}); // tried again when it is needed
    return Math.max(0, Math.min(this.masks.length, index));
  }

  place(mask) {
    return this.masks.findIndex((m) => m.mask_id === mask.mask_id);
  }

  replace(mask, { decided = false } = {}) {
    const at = this.place(mask);
    const before = this.masks[at];
    this.masks[at] = mask;
    this.counts = { ...this.counts };
    this.counts[before.status]--;
    this.counts[mask.status]++;
    this.#decided = this.#decided.filter((id) => id !== mask.mask_id);
    if (decided) this.#decided.push(mask.mask_id);
  }

  get last() {
    return this.masks.find((m) => m.mask_id === this.#decided.at(-1));
  }

  async #fetch() {
    if (this.#done) return;
    this.#fetching ??= this.#next().finally(() => (this.#fetching = null));
    await this.#fetching;
  }

  async #next() {
    const { value, done } = await this.#pages.next();
    if (done) {
      this.#done = true;
      return;
    }
    const loaded = new Set(this.masks.map((m) => m.mask_id));
    this.masks.push(...value.masks.filter((m) => !loaded.has(m.mask_id)));
    if (this.#decided.length === 0) this.counts = value.counts; // later ones might be of before a decision
    this.#done = value.next === null;
  }
}
