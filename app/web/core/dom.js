/* Elements without a framework.

   h(tag, props, ...children)   an element. props: `class`, `on…` (a listener), properties that a
                                form changes (value, checked, …), everything else an attribute;
                                null, undefined and false are left out. children: nodes, texts,
                                arrays of them; null and false are left out.
   s(tag, props, ...children)   the same in SVG.
   fill(node, ...children)      put these in place of what is there; gives the node back.
   icon(name)                   a line drawing of 20 px, hidden from screen readers.
   imageElement(source, props)       an <img> of an image of the service (its path) or of a Blob, fetched
                                (with the key) once it comes near the screen.
   button(text, onclick, props) a button; while the promise of its listener runs it is busy, and
                                what it throws is shown as a toast.
   once(listener)               the same listener, deaf while the promise of its last call runs: a form
                                sent twice by a double press is sent once.
   field(label, control, hint)  a control with its label and a line below.
   announce(text)               say it to screen readers alone.
   toast(text, tone)            show and say it for a while; tone: "good", "bad" or none.
   problem(error)               a box that says what went wrong; of an ApiError all its `errors`.
   dialog(title, build)         a modal dialog. build(close) gives its content; resolves with what
                                close(value) was given, null where it was dismissed.
   keysDialog(title, hint, keys)     a dialog that lists keys: [[keys, what they do]], two blanks apart.
   confirm(title, text, verb)   resolves true where the verb's button was pressed. */

import { blobUrl } from "./api.js";

const AS_PROPERTY = new Set(["value", "checked", "disabled", "selected", "multiple", "hidden", "open", "max", "indeterminate"]);
const SVG = "http://www.w3.org/2000/svg";

export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

export function s(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (AS_PROPERTY.has(name) && name in node) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...flat(children));
  return node;
}

function flat(children) {
  return children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false);
}

export function fill(node, ...children) {
  node.replaceChildren(...flat(children));
  return node;
}

const PATHS = {
  back: "M12 4 6 10l6 6", next: "M8 4l6 6-6 6", add: "M10 4v12M4 10h12", minus: "M4 10h12", undo: "M7 5 3 9l4 4M3 9h8a5 5 0 0 1 0 9h-2",
  redo: "M13 5l4 4-4 4M17 9H9a5 5 0 0 0 0 9h2", trash: "M4 6h12M8 6V4h4v2M6 6l1 11h6l1-11", zoomin: "M9 3a6 6 0 1 0 0 12A6 6 0 0 0 9 3zM14 14l4 4M9 6v6M6 9h6",
  zoomout: "M9 3a6 6 0 1 0 0 12A6 6 0 0 0 9 3zM14 14l4 4M6 9h6", fit: "M3 7V3h4M13 3h4v4M17 13v4h-4M7 17H3v-4", help: "M10 18a8 8 0 1 0 0-16 8 8 0 0 0 0 16zM7.500 8a2.500 2.500 0 1 1 3.500 2.300c-.7.4-1 .8-1 1.700M10 14.500v.1",
  sun: "M10 6a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM10 1v2M10 17v2M1 10h2M17 10h2M3.600 3.600 5 5M15 15l1.400 1.400M16.400 3.600 15 5M5 15l-1.400 1.400", moon: "M16 12.500A7 7 0 0 1 7.500 4 7 7 0 1 0 16 12.500z", auto: "M10 2a8 8 0 1 0 0 16zM10 2a8 8 0 0 1 0 16",
  target: "M10 2a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM10 7a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM10 0v4M10 16v4M0 10h4M16 10h4",
  check: "M4 10.500l4 4 8-9", cross: "M5 5l10 10M15 5 5 15", image: "M3 4h14v12H3zM3 14l4-4 3 3 3-4 4 5M7 8h.1", play: "M6 4l10 6-10 6z", download: "M10 3v10M6 9l4 4 4-4M4 17h12", brush: "M16 3 8 11M8 11c-3 0-2 4-5 5 4 2 8 0 7-3z", erase: "M4 12l7-8 6 5-6 7H7zM8 8l6 5", eye: "M1.500 10S5 4.500 10 4.500 18.500 10 18.500 10 15 15.500 10 15.500 1.500 10 1.500 10zM10 7.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z", menu: "M3 5h14M3 10h14M3 15h14", more: "M4 10h.1M10 10h.1M16 10h.1", warn: "M10 3 2 17h16zM10 8v4M10 14.500v.1",
};

export function icon(name) {
  const props = { viewBox: "0 0 20 20", class: "drawing", "aria-hidden": "true", focusable: "false" };
  return s("svg", props, s("path", { d: PATHS[name] }));
}

const sources = new WeakMap();
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    load(target);
  }
}, { rootMargin: "400px" });

async function load(img) {
  try {
    const source = sources.get(img);
    const url = source instanceof Blob ? URL.createObjectURL(source) : await blobUrl(source);
    const done = () => URL.revokeObjectURL(url);
    img.addEventListener("load", done, { once: true });
    img.addEventListener("error", done, { once: true });
    img.src = url;
  } catch {
    img.classList.add("missing");
  }
}

export function imageElement(source, props) {
  const img = h("img", { alt: "", decoding: "async", ...props });
  sources.set(img, source);
  near.observe(img);
  return img;
}

export function button(content, onclick, props) {
  const press = async (event) => {
    if (node.getAttribute("aria-busy") === "true") return;
    try {
      const promise = onclick?.(event);
      if (!(promise instanceof Promise)) return;
      node.setAttribute("aria-busy", "true");
      await promise;
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, "bad");
    } finally {
      node.removeAttribute("aria-busy");
    }
  };
  const node = h("button", { type: "button", onclick: press, ...props }, content);
  return node;
}

export function once(listener) {
  let busy = false;
  return async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    try {
      await listener(event);
    } finally {
      busy = false;
    }
  };
}

let fields = 0;

export function field(label, control, hint) {
  const id = control.id || `field-${++fields}`;
  control.id = id;
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  const below = hint && h("small", { id: `${id}-hint`, class: "hint" }, hint);
  return h("div", { class: "field" }, h("label", { for: id }, label), control, below);
}

export function announce(text) {
  const live = document.getElementById("live");
  live.textContent = "";
  setTimeout(() => (live.textContent = text), 50);
}

export function toast(text, tone) {
  const close = () => node.remove();
  const node = h("div", { class: "toast", "data-tone": tone }, h("span", null, text), h("button", { type: "button", class: "quiet icon", "aria-label": "Close this message", onclick: close }, icon("cross")));
  document.getElementById("toasts").append(node);
  announce(text);
  setTimeout(close, tone === "bad" ? 12_000 : 5_000);
}

export function problem(error) {
  const more = (error.errors ?? []).slice(0, 200).map((fault) => {
    const start = [fault.part, fault.pointer].filter(Boolean).join(" ");
    return h("li", null, start && h("code", null, start), " ", fault.detail, fault.hint && h("small", { class: "hint" }, fault.hint));
  });
  return h("div", { class: "problem", role: "alert" }, h("strong", null, error.title ?? "This did not work"), h("p", null, summary(error)), more.length > 0 && h("ul", null, more));
}

/* The message without the faults that it repeats from the list below it. */
function summary({ message, errors = [] }) {
  const start = errors.length ? message.indexOf(errors[0].detail) : -1;
  if (start < 0) return message;
  const before = message.slice(0, start).replace(/[:\s]+$/, "");
  return before === `${errors[0].part}${errors[0].pointer}` ? "" : before;
}

export function dialog(title, build) {
  return new Promise((resolve) => {
    let answer = null;
    const close = (value = null) => {
      answer = value;
      node.close();
    };
    const head = h("div", { class: "row spread nowrap" }, h("h2", { id: "dialog-title" }, title), h("button", { type: "button", class: "quiet icon", "aria-label": "Close", onclick: () => close() }, icon("cross")));
    const node = h("dialog", { "aria-labelledby": "dialog-title" }, head, build(close));
    node.addEventListener("close", () => {
      node.remove();
      resolve(answer);
    });
    document.body.append(node);
    node.showModal();
    node.querySelector("[autofocus]")?.focus();
  });
}

export function keysDialog(title, hint, keys) {
  if (document.querySelector("dialog[open]")) return null;
  const list = keys.map(([names, what]) => [h("dt", null, names.split("  ").map((name) => [h("kbd", null, name), " "])), h("dd", null, what)]);
  return dialog(title, () => [h("p", { class: "hint" }, hint), h("dl", { class: "facts keys" }, list)]);
}

export async function confirm(title, text, verb = "Go on", tone = "danger") {
  const answer = await dialog(title, (close) => [
    h("p", null, text),
    h("div", { class: "row end" }, button("Back", () => close(), { class: "quiet" }), button(verb, () => close(true), { class: tone })),
  ]);
  return answer === true;
}
