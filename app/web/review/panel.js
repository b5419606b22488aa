/* What stands round the image of a review: counts, facts, proposals, tools, decisions.

   buildPanel(review)      review is the Review of views/review.js
     .element              the whole view, with review.viewer in it
     .update()             follow review.queue, review.draft and review.tools
   showKeys()              a dialog that lists the keys
     .pieces(photo)        draw the proposals on pieces of the photograph */

import { button, field, fill, h, icon, keysDialog } from "../core/dom.js";
import { count } from "../core/format.js";
import { badge, className, quality, STATUS } from "../viewer/masks.js";
import { drawPoint, drawShape, shapeOf } from "../viewer/overlay.js";
import { paintPiece } from "../viewer/image_cache.js";

const MOST = 6; // proposals that have a key
const TOOLS = [
  ["positive", "Add here", "+", "add"],
  ["negative", "Not here", "−", "minus"],
  ["paint", "Brush", "B", "brush"],
  ["erase", "Eraser", "E", "erase"],
];
const HELP = [
  ["A", "accept the mask as it is shown"], ["R", "reject the object"], ["1 – 6", "take another proposal"],
  ["+  −", "then click: a point of the object, or of what is not"], ["B  E", "brush, eraser; [ ] their size"],
  ["Z", "undo; with nothing to undo, reopen the last one"], ["Enter", "save what was changed, and go on"],
  ["← →", "the mask before, the next one"], ["H", "hide the mask"], ["F  0", "the object, the whole image"], ["I  O", "zoom in, out; Shift and an arrow pans"],
  ["arrows  Space", "with a tool in hand: move the crosshair, set it down; Esc lays it down"], ["?", "this list"],
];

/* The second click of a double one may come when the next mask is shown already. */
const once = (act) => (event) => void (event.detail > 1 || act());

const key = (text) => h("kbd", { "aria-hidden": "true" }, text);

export const showKeys = () => keysDialog("Keys of the review", "They work wherever the focus is, but for fields that take text.", HELP);

export function buildPanel(review) {
  const { tools, viewer } = review;
  const counts = h("div", { class: "row counts" });
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Masks that are decided" });
  const facts = h("div", { class: "stack tight" });
  const proposals = h("div", { class: "proposals" });
  const shortcut = { positive: "+", negative: "-", paint: "b", erase: "e" };
  const toolButtons = TOOLS.map(([mode, label, text, drawing]) => h("button", { type: "button", class: "small tool", "aria-pressed": "false", "aria-keyshortcuts": shortcut[mode], "data-mode": mode, onclick: () => tools.set(mode) }, icon(drawing), h("span", null, label), key(text)));
  const size = h("input", { type: "range", min: 0.5, max: 60, step: 0.5, value: tools.radius, oninput: () => { tools.radius = Number(size.value); viewer.redraw(); } });
  const brush = field("Size of the brush", size);
  const undo = button([icon("undo"), "Undo", key("Z")], (event) => review.undo(event.detail > 1), { class: "small", "aria-keyshortcuts": "z" });
  const hide = h("button", { type: "button", class: "small", "aria-pressed": "false", "aria-keyshortcuts": "h", onclick: () => review.hide() }, icon("eye"), "Hide the mask", key("H"));
  const busy = h("span", { class: "badge thinking", "data-tone": "busy" }, "a new mask is on its way");
  const accept = button([icon("check"), "Accept", key("A")], once(() => review.accept()), { class: "good", "aria-keyshortcuts": "a" });
  const reject = button([icon("cross"), "Reject", key("R")], once(() => review.reject()), { class: "danger", "aria-keyshortcuts": "r" });
  const save = button([h("span", null, "Save", h("span", { class: "wide" }, " and next")), key("Enter")], once(() => review.save()), { class: "primary", "aria-label": "Save and next" });
  const before = button(icon("back"), () => review.move(-1), { class: "icon", "aria-label": "Mask before" });
  const next = button(icon("next"), () => review.move(1), { class: "icon", "aria-label": "Next mask" });
  const where = h("span", { class: "number hint" });
  const end = h("div", { class: "ended stack" });
  const working = h("div", { class: "reviewing panel" },
    viewer.element,
    h("div", { class: "aside stack" },
      facts,
      h("section", { class: "stack tight", "aria-label": "Proposals" }, h("h2", null, "Other proposals"), proposals),
      h("section", { class: "stack tight", "aria-label": "Correct it" }, h("h2", null, "Correct it"), h("div", { class: "tools" }, toolButtons), brush, h("div", { class: "row" }, undo, hide, busy))),
    h("div", { class: "decide" }, h("div", { class: "row nowrap" }, before, where, next), h("div", { class: "row" }, reject, accept, save)));

  const element = h("div", { class: "stack" },
    h("div", { class: "row spread" },
      h("div", { class: "stack tight" }, h("h1", null, "Review"), h("p", { class: "hint" }, review.job.kind === "train" ? h("a", { href: `#/jobs/${review.job.id}/results` }, "Results") : h("a", { href: `#/jobs/${review.job.id}` }, "Predicted masks"), ` of ${review.dataset.name}. `, orders(review))),
      button("Make a new version and train again from here", () => review.again(), { class: "again" })),
    h("div", { class: "stack tight" }, counts, bar),
    working, end,
    h("details", null, h("summary", null, "Keys"), h("dl", { class: "facts keys" }, HELP.map(([keys, what]) => [h("dt", null, keys.split("  ").map((k) => [h("kbd", null, k), " "])), h("dd", null, what)]))));

  function update() {
    const { queue, draft } = review;
    const total = Object.values(queue.counts).reduce((a, b) => a + b, 0);
    fill(counts, STATUS.map(([name, label, tone]) => h("span", { class: "badge number", "data-tone": tone }, `${queue.counts[name]} ${label}`)));
    bar.value = total ? 1 - queue.counts.open / total : 0;
    working.hidden = !queue.current;
    fill(end, queue.current ? null : atTheEnd(review, total));
    if (!queue.current) return;
    fill(facts, about(review, queue.current));
    if (proposals.dataset.of !== queue.current.mask_id) offer(review, proposals, queue.current);
    [...proposals.querySelectorAll("button")].forEach((node) => node.setAttribute("aria-pressed", String(Number(node.dataset.index) === draft.choice)));
    for (const node of toolButtons) node.setAttribute("aria-pressed", String(node.dataset.mode === tools.mode));
    size.value = tools.radius;
    brush.hidden = !["paint", "erase"].includes(tools.mode);
    busy.hidden = !tools.busy;
    hide.setAttribute("aria-pressed", String(!review.masked));
    save.disabled = !draft.changed && !tools.busy;
    before.disabled = queue.index === 0;
    where.textContent = `${queue.index + 1} / ${Math.max(queue.masks.length, queue.index + queue.counts.open)}`;
  }

  const pieces = (photo) => {
    for (const node of proposals.querySelectorAll("button")) {
      const candidate = review.queue.current.candidates.find((c) => c.index === Number(node.dataset.index));
      const shape = shapeOf(candidate.segmentation);
      paintPiece(node.querySelector("canvas"), photo, shape.box ?? [...review.queue.current.point, 8, 8], (ctx, scale) => {
        drawShape(ctx, shape, review.colour, { scale, line: 2.5 });
        drawPoint(ctx, ...review.queue.current.point, { scale, plain: true });
      }, 120);
      node.dataset.drawn = review.queue.current.mask_id;
    }
  };
  return { element, update, pieces };
}

function about({ classes, names }, mask) {
  const swatch = h("span", { class: "swatch" });
  swatch.style.setProperty("--swatch", classes.get(mask.category_id)?.css ?? "currentColor");
  const features = Object.entries(mask.doubts ?? {}).filter(([, value]) => typeof value === "number");
  return [
    h("div", { class: "row spread nowrap" }, h("h2", { class: "row nowrap" }, swatch, h("span", { class: "ellipsis" }, `${className(classes, mask)} ${mask.id}`)), badge(mask)),
    h("p", { class: "hint" }, `${names.get(mask.image_id) ?? `image ${mask.image_id}`} · ${mask.source}`),
    h("div", { class: "row nowrap" }, h("span", { class: "hint" }, "Quality"), meter(mask.quality), h("strong", { class: "number" }, quality(mask.quality))),
    features.length > 0 && h("details", null, h("summary", null, "What it is made of"), h("dl", { class: "facts" }, features.map(([name, value]) => [h("dt", null, name.replaceAll("_", " ")), h("dd", { class: "number" }, quality(value))]))),
  ];
}

/* Which masks come first, as links: the address says it. Other filters have one order. */
function orders(review) {
  const { byImage, query } = review;
  if ((query.get("status") ?? "open") !== "open") return "The worst quality first";
  const to = (order) => {
    const params = new URLSearchParams(query);
    params.delete("mask");
    params.set("order", order);
    return `#/jobs/${review.job.id}/review?${params}`;
  };
  const one = (order, text, current) => (current ? h("strong", { "aria-current": "true" }, text) : h("a", { href: to(order) }, text));
  return [one("images", "Image by image", byImage), " · ", one("worst", "the worst quality first", !byImage)];
}

function meter(value) {
  return h("progress", { class: "grow", max: 1, value, "aria-label": "Quality" });
}

function offer(review, node, mask) {
  node.dataset.of = mask.mask_id;
  const some = (mask.candidates ?? []).slice(0, MOST);
  if (some.length === 0) return fill(node, h("p", { class: "hint" }, "There are none for this object."));
  fill(node, some.map((candidate) => {
    const label = `Proposal ${candidate.index + 1}`;
    const share = typeof candidate.probability === "number" ? quality(candidate.probability) : "";
    return h("button", { type: "button", class: "proposal", "data-index": candidate.index, "aria-pressed": "false", "aria-label": `${label}, probability ${share}`, "aria-keyshortcuts": candidate.index + 1, onclick: () => review.choose(candidate.index) },
      h("canvas", { width: 120, height: 120, "aria-hidden": "true" }), h("span", { class: "row nowrap spread" }, key(candidate.index + 1), h("span", { class: "number hint" }, share)));
  }));
}

function atTheEnd(review, total) {
  const { counts, masks } = review.queue;
  const open = counts.open > 0;
  return h("div", { class: "card empty stack" },
    h("h2", null, open ? "The end of this queue" : "Every mask is decided"),
    h("p", null, open ? `${count(counts.open, "mask is", "masks are")} still open of ${total}.` : `${total} of ${total}. Make a new version of the data set with them, and train again from here.`),
    h("div", { class: "row center" },
      masks.length > 0 && button([icon("back"), "Back to the last one"], () => review.move(-1)),
      open && button("Look at the open ones again", () => dispatchEvent(new Event("showagain"))),
      button("Train again from here", () => review.again(), { class: "primary" })));
}
