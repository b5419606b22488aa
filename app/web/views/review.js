/* #/jobs/{id}/review: the masks one at a time, the worst first; each accepted, mended or rejected by
   single keys. Then a new version of the data set, and a training that goes on from here.

   show(root, {id, query}, {signal})     ?mask=ID begins with that one; ?status=, ?class=, ?quality=
                                         filter the queue (open ones by default) */

import { ApiError } from "../api.js";
import { announce, fill, toast } from "../dom.js";
import { Draft } from "../draft.js";
import { className, decide, names, ofImage, openJob, quality, reload, suggest } from "../masks.js";
import { drawPoint, drawShape, shapeOf } from "../overlay.js";
import { photo } from "../photos.js";
import { buildPanel } from "../review_panel.js";
import { Queue } from "../review_queue.js";
import { Tools } from "../review_tools.js";
import { trainAgain } from "../train_again.js";
import { Viewer } from "../viewer.js";

export async function show(root, { id, query }, { signal }) {
  const place = await openJob(id, signal);
  const params = { status: query.get("status") ?? "open", category_id: query.get("class"), max_quality: query.get("quality") };
  const review = new Review({ ...place, names: await names(place.dataset.id, signal) }, new Queue(id, params, signal), signal);
  fill(root, review.element);
  await review.queue.begin(query.get("mask"));
  await review.present();
}

class Review {
  constructor(place, queue, signal) {
    Object.assign(this, place, { queue, signal, draft: null, siblings: [], masked: true, saving: false });
    this.viewer = new Viewer({ label: "The mask over its picture. The keys of the list work here too", signal });
    this.viewer.layers = [(ctx, viewer) => this.draw(ctx, viewer.scale)];
    this.tools = new Tools(this.viewer, {
      ask: (question, stopped) => suggest(queue.current, question, stopped),
      onchange: () => this.tell(),
      ontold: (text, tone) => (tone ? toast(text, tone) : announce(text)),
    });
    this.tools.takes = (event) => this.key(event);
    this.panel = buildPanel(this);
    this.element = this.panel.element;
    document.addEventListener("keydown", (event) => this.outside(event), { signal });
  }

  /* The mask at the queue's place, as the service has it. */
  async present() {
    const mask = this.queue.current;
    this.draft = mask ? new Draft(mask) : null;
    this.siblings = [];
    this.tools.take(this.draft);
    this.tell();
    if (!mask) return announce("The queue is at its end");
    announce(`${className(this.classes, mask)} ${mask.id}, quality ${quality(mask.quality)}, ${mask.status}`);
    try {
      const picture = await photo(this.dataset.id, mask.image_id);
      if (mask !== this.queue.current || this.signal.aborted) return;
      if (this.viewer.source !== picture) await this.viewer.show(picture);
      this.look();
      this.panel.pieces(picture);
      const following = this.queue.masks[this.queue.index + 1];
      if (following) photo(this.dataset.id, following.image_id).catch(() => {}); // it is shown then
      const around = await ofImage(this.job.id, mask.image_id, {}, this.signal);
      if (mask !== this.queue.current) return;
      this.siblings = around.filter((m) => m.mask_id !== mask.mask_id && m.status !== "rejected");
      this.viewer.redraw();
    } catch (error) {
      if (!this.signal.aborted) toast(error.message, "bad");
    }
  }

  look() {
    const { segmentation, point } = this.queue.current;
    const [x, y, w, h] = shapeOf(segmentation).box ?? [...point, 0, 0];
    const [left, top] = [Math.min(x, point[0]), Math.min(y, point[1])];
    const [right, bottom] = [Math.max(x + w, point[0]), Math.max(y + h, point[1])];
    const air = 0.1 * Math.max(right - left, bottom - top, 16);
    this.viewer.lookAt([left - air, top - air, right - left + 2 * air, bottom - top + 2 * air]);
  }

  get colour() {
    return this.classes.get(this.queue.current?.category_id)?.css ?? "#4fd1c5";
  }

  draw(ctx, scale) {
    if (!this.draft) return;
    for (const other of this.siblings) drawShape(ctx, shapeOf(other.segmentation), "#ffffff", { scale, fill: 0, line: 0.75, dashed: true });
    if (this.masked) drawShape(ctx, this.draft.shape, this.colour, { scale, fill: 0.3, line: 2 });
    drawPoint(ctx, ...this.queue.current.point, { scale, plain: true });
    this.tools.draw(ctx, scale);
  }

  tell() {
    this.panel.tell();
    this.viewer.redraw();
  }

  choose(index) {
    if (!this.draft?.choose(index)) return announce(`There is no proposal ${index + 1}`);
    announce(`Proposal ${index + 1}`);
    this.tools.take(this.draft);
    this.tell();
  }

  async undo() {
    if (this.tools.undo()) return announce("Undone");
    const last = this.queue.current?.status === "open" || !this.queue.current ? this.queue.back() : this.queue.current;
    if (!last) return announce("There is nothing to undo");
    await this.settle({ decision: "reopen" }, 0);
  }

  async move(by) {
    if (this.draft?.changed && !this.saving) announce("What was not saved is gone");
    await this.queue.go(by);
    await this.present();
  }

  /* Saves what was changed; a mask that was not changed is left as it is. */
  async save() {
    await this.tools.settle();
    if (!this.draft) return;
    if (!this.draft.changed) return this.move(1);
    const { choice } = this.draft;
    await this.settle(choice === null ? { decision: "correct", segmentation: this.draft.rle } : { decision: "choose", candidate: choice }, 1);
  }

  async accept() {
    await this.tools.settle();
    if (this.draft?.changed) return this.save();
    await this.settle({ decision: "accept" }, 1);
  }

  async reject() {
    await this.settle({ decision: "reject" }, 1);
  }

  /* Tell the service of a decision, and go on. */
  async settle(decision, by) {
    const mask = this.queue.current;
    if (!mask || this.saving) return;
    this.saving = true;
    try {
      const now = await decide(mask, decision, this.signal);
      this.queue.replace(now, { decided: now.status !== "open" });
      announce(`${now.status}`);
      await this.queue.go(by);
      this.saving = false; // what is shown next may be decided at once
      await this.present();
    } catch (error) {
      this.saving = false;
      if (this.signal.aborted) return;
      if (error instanceof ApiError && error.status === 412) await this.overtaken(mask);
      else toast(error.message, "bad");
    }
  }

  async overtaken(mask) {
    const now = await reload(mask, this.signal);
    this.queue.replace(now);
    const who = now.decided_by ? `${now.decided_by} was faster` : "Somebody else, or another tab of yours, was faster";
    toast(`${who}: this mask is ${now.status} now. It is shown as it stands; nothing of yours was saved.`, "bad");
    await this.present();
  }

  again() {
    return trainAgain({ job: this.job, dataset: this.dataset, counts: this.queue.counts });
  }

  key(event) {
    const command = event.ctrlKey || event.metaKey;
    if (event.altKey || (command && event.key.toLowerCase() !== "z")) return false;
    if (!command && this.tools.key(event)) return true;
    const known = {
      a: () => this.accept(), r: () => this.reject(), enter: () => this.save(), z: () => this.undo(),
      "+": () => this.tools.set("positive"), "=": () => this.tools.set("positive"),
      "-": () => this.tools.set("negative"), "−": () => this.tools.set("negative"),
      b: () => this.tools.set("paint"), e: () => this.tools.set("erase"),
      h: () => this.hide(), f: () => this.draft && this.look(), 0: () => this.viewer.fit(),
      i: () => this.viewer.zoom(1.25), o: () => this.viewer.zoom(0.8),
      ...(event.shiftKey ? {} : { arrowright: () => this.move(1), arrowleft: () => this.move(-1), arrowdown: () => this.move(1), arrowup: () => this.move(-1) }),
    };
    const digit = /^[1-6]$/.test(event.key) ? () => this.choose(Number(event.key) - 1) : null;
    const act = known[event.key.toLowerCase()] ?? digit;
    if (!act) return false;
    Promise.resolve(act()).catch((error) => !this.signal.aborted && toast(error.message, "bad"));
    return true;
  }

  hide() {
    this.masked = !this.masked;
    this.tell();
  }

  /* The same keys wherever the focus is, but for controls that need them; the canvas asks by itself. */
  outside(event) {
    const { target } = event;
    if (target === this.viewer.canvas || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (target.closest("input, select, textarea")) return;
    if (target.closest("button, a, summary") && (event.key === "Enter" || event.key === " ")) return;
    if (this.key(event)) event.preventDefault();
  }
}
