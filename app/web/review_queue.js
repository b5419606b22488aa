/* The queue of a review: masks as they are fetched, the place in it, and what was decided.

   new Queue(jobId, params, signal)   params: the filter of masks.js's worstFirst
     .masks, .index, .counts          counts {open, accepted, corrected, rejected} of the whole job
     .current                         the mask at the place, or undefined behind the last
     await .begin(maskId)             fetch the first; the named mask, if any, comes first of all
     await .go(by)                    another place; behind the last is one too. More are fetched
                                      before they are needed
     .replace(mask)                   what the service says of a mask now; counts follow
     .back()                          to the mask that was decided last; undefined where none was */

import { reload, worstFirst } from "./masks.js";

const AHEAD = 8;

export class Queue {
  #pages;
  #done = false;
  #fetching = null;
  #decided = [];

  constructor(jobId, params, signal) {
    this.masks = [];
    this.index = 0;
    this.counts = { open: 0, accepted: 0, corrected: 0, rejected: 0 };
    this.signal = signal;
    this.#pages = worstFirst(jobId, { limit: 30, ...params }, signal);
  }

  get current() {
    return this.masks[this.index];
  }

  async begin(maskId) {
    if (maskId) this.masks.push(await reload(maskId, this.signal));
    await this.#fetch();
  }

  async go(by) {
    this.index = Math.max(0, Math.min(this.masks.length, this.index + by));
    if (this.index >= this.masks.length) await this.#fetch();
    else if (this.index > this.masks.length - AHEAD) this.#fetch().catch(() => {}); // tried again when it is needed
  }

  replace(mask, { decided = false } = {}) {
    const at = this.masks.findIndex((m) => m.mask_id === mask.mask_id);
    const before = this.masks[at];
    this.masks[at] = mask;
    this.counts = { ...this.counts };
    this.counts[before.status]--;
    this.counts[mask.status]++;
    this.#decided = this.#decided.filter((id) => id !== mask.mask_id);
    if (decided) this.#decided.push(mask.mask_id);
  }

  back() {
    const last = this.#decided.at(-1);
    const at = this.masks.findIndex((m) => m.mask_id === last);
    if (at >= 0) this.index = at;
    return at >= 0 ? this.current : undefined;
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
    const known = new Set(this.masks.map((m) => m.mask_id));
    this.masks.push(...value.masks.filter((m) => !known.has(m.mask_id)));
    if (this.#decided.length === 0) this.counts = value.counts; // later ones might be of before a decision
    this.#done = value.next === null;
  }
}
