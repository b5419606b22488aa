/* #/jobs/{id}/review: the masks one at a time, the worst first; each accepted, corrected or rejected by
   single keys. Then a new version of the data set, and a training that goes on from here.

   A decision is about the mask, its revision and the draft that were shown when the key was pressed:
   all three are taken before anything is waited for, and the draft is frozen until it is saved. Only
   then is the next mask shown, and only if nobody has asked for another meanwhile.

   show(root, {id, query}, {signal})     ?mask=ID begins with that one; ?status=, ?class=, ?quality=
                                         filter the queue (open ones by default); ?order=images or
                                         worst: image by image, or the worst quality first. Predicted
                                         masks come image by image by default, a training's worst first */

import { ApiError } from "../core/api.js";
import { announce, confirm, fill, toast } from "../core/dom.js";
import { Draft } from "../review/draft.js";
import { className, decide, imageByImage, names, ofImage, openJob, quality, reload, suggest, worstFirst } from "../viewer/masks.js";
import { drawPoint, drawShape, shapeOf } from "../viewer/overlay.js";
import { photo } from "../viewer/image_cache.js";
import { buildPanel, showKeys } from "../review/panel.js";
import { Queue } from "../review/queue.js";
import { Tools } from "../review/tools.js";
import { trainAgain } from "../review/train_again.js";
import { guard } from "../core/unsaved.js";
import { Viewer } from "../viewer/viewer.js";

export async function show(root, { id, query }, { signal }) {
  const place = await openJob(id, signal);
  const params = { status: query.get("status") ?? "open", category_id: query.get("class"), max_quality: query.get("quality") };
  const byImage = params.status === "open" && (query.get("order") ?? (place.job.kind === "label" ? "images" : "worst")) === "images";
  const pages = byImage ? imageByImage(place.job, params, signal) : worstFirst(id, { limit: 30, ...params }, signal);
  const review = new Review({ ...place, query, byImage, names: await names(place.dataset.id, signal) }, new Queue(pages, signal), signal);
  fill(root, review.element);
  await review.queue.begin(query.get("mask"));
  await review.present();
}

class Review {
  #turn = 0; // counts what was asked for: an answer to what came before is not shown
  #sending = new Set(); // promises of decisions that are on their way
  #kept = new Map(); // mask id -> the draft that is being saved, or could not be

  constructor(place, queue, signal) {
    Object.assign(this, place, { queue, signal, draft: null, siblings: [], masked: true, shownImage: null });
    this.viewer = new Viewer({ label: "The mask over its image. The keys of the list work here too", signal });
    this.viewer.layers = [(ctx, viewer) => this.draw(ctx, viewer.scale)];
    this.tools = new Tools(this.viewer, {
      ask: (draft, stopped) => suggest(draft.mask, draft.question(), stopped),
      onchange: () => this.update(),
      onmessage: (text, tone) => (tone ? toast(text, tone) : announce(text)),
    });
    this.tools.onkey = (event) => this.key(event);
    this.panel = buildPanel(this);
    this.element = this.panel.element;
    document.addEventListener("keydown", (event) => this.outside(event), { signal });
    signal.addEventListener("abort", () => this.tools.take(null));
    guard(({ closing }) => this.lost() ?? (closing && this.#sending.size > 0 ? "A decision is still being saved." : null), signal);
  }

  /* The mask at the queue's place, as the service has it, or as it was left. */
  async present() {
    const mask = this.queue.current;
    const over = () => this.signal.aborted || mask.mask_id !== this.queue.current?.mask_id;
    this.siblings = [];
    if (mask && this.shownImage !== mask.image_id) {
      this.viewer.show(null); // no mask over another's image
      this.shownImage = null;
    }
    this.take(mask ? (this.#kept.get(mask.mask_id) ?? new Draft(mask)) : null);
    if (!mask) return announce("The queue is at its end");
    announce(`${this.called(mask)}, quality ${quality(mask.quality)}, ${mask.status}`);
    try {
      const image = await photo(this.dataset.id, mask.image_id);
      if (over()) return;
      if (this.viewer.source !== image) this.viewer.show(image);
      this.shownImage = mask.image_id;
      this.look();
      this.panel.pieces(image);
      const following = this.queue.masks[this.queue.index + 1];
      if (following) photo(this.dataset.id, following.image_id).catch(() => {}); // it is shown then
      const around = await ofImage(this.job.id, mask.image_id, {}, this.signal);
      if (over()) return;
      this.siblings = around.filter((m) => m.mask_id !== mask.mask_id && m.status !== "rejected");
      this.viewer.redraw();
    } catch (error) {
      if (!over()) toast(error.message, "bad");
    }
  }

  take(draft) {
    this.draft = draft;
    this.tools.take(draft);
    this.update();
  }

  called(mask) {
    return `${className(this.classes, mask)} ${mask.id}`;
  }

  look() {
    const { segmentation, point } = this.draft.mask;
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
    drawPoint(ctx, ...this.draft.mask.point, { scale, plain: true });
    this.tools.draw(ctx, scale);
  }

  update() {
    if (this.signal.aborted) return;
    this.panel.update();
    this.viewer.redraw();
  }

  choose(index) {
    if (this.draft?.frozen) return this.saving();
    if (!this.draft?.choose(index)) return announce(`There is no proposal ${index + 1}`);
    announce(`Proposal ${index + 1}`);
    this.take(this.draft); // and the question that is on its way is taken back
  }

  saving() {
    announce("A decision is still being saved");
  }

  async undo(repeated = false) {
    if (this.tools.undo()) return announce("Undone");
    if (repeated) return;
    if (this.#sending.size) return this.saving();
    const { current, last } = this.queue;
    const mask = current && current.status !== "open" ? current : last;
    if (!mask) return announce("There is nothing to undo");
    if (await this.mayDrop()) await this.settle(mask, () => ({ decision: "reopen" }), 0);
  }

  /* To the place of this index, unless another is asked for before it is there. */
  async go(index) {
    const turn = ++this.#turn;
    const place = await this.queue.reach(index);
    if (turn !== this.#turn || !(await this.mayDrop()) || turn !== this.#turn || this.signal.aborted) return;
    this.queue.index = place;
    await this.present();
  }

  move(by) {
    return this.go(this.queue.index + by);
  }

  /* Whether the shown draft may be left: it is as the service has it, it is being saved, or it is let go. */
  async mayDrop() {
    const { draft } = this;
    if (!draft?.unsaved || draft.frozen) return true;
    const title = `Drop the changes to ${this.called(draft.mask)}?`;
    if (!(await confirm(title, "They are not saved. To save them, go back and press Enter.", "Drop them"))) return false;
    this.#kept.delete(draft.mask.mask_id);
    return true;
  }

  /* What would be lost with this page, as a sentence; null for nothing. */
  lost() {
    const drafts = new Set([...this.#kept.values(), this.draft].filter((draft) => draft?.unsaved));
    return drafts.size ? `The changes to ${[...drafts].map(({ mask }) => this.called(mask)).join(", ")} are not saved.` : null;
  }

  /* Saves what was changed; a mask that was not changed is left as it is. */
  save() {
    const { draft } = this;
    if (draft && !draft.frozen && !draft.changed && !draft.pending) return this.move(1);
    return this.settle(draft?.mask, () => this.edited(draft, null));
  }

  accept() {
    const { draft } = this;
    return this.settle(draft?.mask, () => this.edited(draft, { decision: "accept" }));
  }

  async reject() {
    const { draft } = this;
    if (draft?.frozen) return this.saving();
    if (await this.mayDrop()) await this.settle(draft?.mask, () => ({ decision: "reject" }));
  }

  /* The decision that a draft makes, once its clicks are answered; `same` where it has no change, and
     undefined where a click got no answer: then it is not what was to be saved. */
  async edited(draft, same) {
    if (!(await this.tools.answered(draft))) return undefined;
    if (!draft.changed) return same;
    return draft.choice === null ? { decision: "correct", segmentation: draft.rle } : { decision: "choose", candidate: draft.choice };
  }

  /* Tell the service what make() decides about this mask, and go on by so many. */
  async settle(mask, make, by = 1) {
    const { draft } = this;
    if (!mask) return;
    if (draft?.frozen) return this.saving();
    const turn = ++this.#turn;
    const id = draft?.mask.mask_id;
    if (draft) {
      draft.frozen = true;
      this.#kept.set(id, draft);
    }
    const sent = this.send(mask, draft, make);
    this.#sending.add(sent);
    this.update();
    const settled = await sent;
    this.#sending.delete(sent);
    if (draft) draft.frozen = false;
    if (settled || !draft?.unsaved) if (this.#kept.get(id) === draft) this.#kept.delete(id);
    if (this.signal.aborted) return;
    if (settled && this.queue.current?.mask_id === mask.mask_id) this.take(new Draft(this.queue.current));
    else this.update();
    if (settled && turn === this.#turn) await this.go(this.queue.place(mask) + by);
  }

  /* Whether it was settled. What fails is shown, and the draft stays. */
  async send(mask, draft, make) {
    try {
      const decision = await make();
      if (decision === undefined) throw new Error("a click got no answer.");
      if (decision === null) return true;
      const now = await decide(mask, decision);
      this.queue.replace(now, { decided: now.status !== "open" });
      announce(`${now.status}`);
      return true;
    } catch (error) {
      try {
        if (error instanceof ApiError && error.status === 412) await this.overtaken(mask, draft);
        else toast(`${this.called(mask)} is not saved: ${error.message}`, "bad");
      } catch (again) {
        toast(`${this.called(mask)} is not saved: ${again.message}`, "bad");
      }
      return false;
    }
  }

  /* Nothing is sent again: the newer version has not been seen. What was made of the older one is a
     step of undo away. */
  async overtaken(mask, draft) {
    const now = await reload(mask);
    this.queue.replace(now);
    const edited = draft?.mask.mask_id === mask.mask_id && draft.unsaved;
    const fresh = new Draft(now, edited ? draft : null);
    if (edited) this.#kept.set(mask.mask_id, fresh);
    const who = now.decided_by ? `${now.decided_by} was faster` : "Somebody else, or another tab of yours, was faster";
    toast(`${who}: this mask is ${now.status} now. ${this.called(mask)} is shown as it stands; nothing of yours was saved.${edited ? " Undo (Z) gives your changes back." : ""}`, "bad");
    if (this.queue.current === now && !this.signal.aborted) this.take(fresh);
  }

  async again() {
    await Promise.all(this.#sending);
    const lost = this.lost();
    if (lost && !(await confirm("Go on without the changes?", `${lost} The new version will not have them.`, "Go on", "primary"))) return;
    if (!this.signal.aborted) await trainAgain({ job: this.job, dataset: this.dataset, counts: this.queue.counts }, this.signal);
  }

  key(event) {
    const command = event.ctrlKey || event.metaKey;
    if (event.altKey || (command && event.key.toLowerCase() !== "z")) return false;
    if (!command && this.tools.key(event)) return true;
    if (event.repeat && ["a", "r", "enter"].includes(event.key.toLowerCase())) return true; // a key held down is one decision
    const actions = {
      a: () => this.accept(), r: () => this.reject(), enter: () => this.save(), z: () => this.undo(event.repeat),
      "+": () => this.tools.set("positive"), "=": () => this.tools.set("positive"),
      "-": () => this.tools.set("negative"), "−": () => this.tools.set("negative"),
      b: () => this.tools.set("paint"), e: () => this.tools.set("erase"),
      "?": () => void showKeys(), h: () => this.hide(), f: () => this.draft && this.look(), 0: () => this.viewer.fit(),
      i: () => this.viewer.zoom(1.25), o: () => this.viewer.zoom(0.8),
      ...(event.shiftKey ? {} : { arrowright: () => this.move(1), arrowleft: () => this.move(-1), arrowdown: () => this.move(1), arrowup: () => this.move(-1) }),
    };
    const digit = /^[1-6]$/.test(event.key) ? () => this.choose(Number(event.key) - 1) : null;
    const act = actions[event.key.toLowerCase()] ?? digit;
    if (!act) return false;
    Promise.resolve(act()).catch((error) => !this.signal.aborted && toast(error.message, "bad"));
    return true;
  }

  hide() {
    this.masked = !this.masked;
    this.update();
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
