/* The page's frame: which view a hash names, the navigation, the theme, the question for a key.

   A view is a module views/NAME.js that exports
       async function show(root, params, {signal})
   root: an empty <section> in <main>, on the page already. params: what the hash's pattern names
   (params.id), and params.query, the URLSearchParams after its "?". signal is aborted when the view
   is left. What it would lose by that it registers with unsaved.js, which asks before the view is changed; the
   address goes back where the answer is no. An event "showagain" at the window shows the same view
   anew. The view's first <h1> gets the focus and gives the page its title. What it throws is
   shown in its place. */

import { ApiError, address, asks, post, setKey } from "./core/api.js";
import { button, dialog, field, fill, h, icon, problem } from "./core/dom.js";
import { mayLeave } from "./core/unsaved.js";

const ROUTES = [
  ["/datasets", "datasets"],
  ["/datasets/new", "newdataset"],
  ["/datasets/:id", "dataset"],
  ["/datasets/:id/edit", "editdataset"],
  ["/jobs", "jobs"],
  ["/jobs/:id", "job"],
  ["/jobs/:id/results", "results"],
  ["/jobs/:id/review", "review"],
  ["/jobs/:id/compare/:other", "compare"],
  ["/models", "models"],
  ["/predict", "predict"],
];
const PLACE = "sapnet-place";
const NAVIGATION = [["/datasets", "Data sets"], ["/jobs", "Jobs"], ["/models", "Models"], ["/predict", "Predict"]];

export function match(path) {
  for (const [pattern, view] of ROUTES) {
    const names = [];
    const source = pattern.replace(/:(\w+)/g, (_, name) => `${(names.push(name), "([^/]+)")}`);
    const matched = new RegExp(`^${source}/?$`).exec(path);
    if (matched) return { view, params: Object.fromEntries(names.map((name, i) => [name, decodeURIComponent(matched[i + 1])])) };
  }
  return null;
}

let leaving = new AbortController();
let here = history.state?.at ?? 0; // which entry of the browser's history is shown
let asking = false;

const place = () => history.state?.at ?? here + 1; // a new entry has no state yet

async function changed({ type }) {
  if (asking || location.hash === "#main") return; // the skip link
  if (type === "hashchange" && place() === here) return; // it is back where the view is that is shown
  asking = true;
  const leave = await mayLeave();
  asking = false;
  if (leave) return route(place());
  if (place() !== here) history.go(here - place());
}

async function route(at) {
  here = at;
  history.replaceState({ ...history.state, at }, "");
  for (const open of document.querySelectorAll("dialog[open]")) open.close(); // of the view before
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [path, query = ""] = (location.hash.slice(1) || "/datasets").split("?");
  const matched = match(path);
  mark(path);
  const main = document.getElementById("main");
  const root = h("section", { class: "view", "aria-busy": "true" });
  fill(main, root);
  scrollTo(0, 0);
  try {
    if (!matched) throw new ApiError(404, { title: "Not found", detail: `There is no page ${path}.` });
    main.dataset.view = matched.view;
    const module = await import(`./views/${matched.view}.js`);
    if (signal.aborted) return;
    await module.show(root, { ...matched.params, query: new URLSearchParams(query) }, { signal });
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    console.error(error);
    fill(root, h("h1", null, "This page cannot be shown"), problem(error), h("p", null, h("a", { href: "#/datasets" }, "To the data sets")));
  }
  if (signal.aborted) return;
  root.removeAttribute("aria-busy");
  const title = root.querySelector("h1");
  document.title = title ? `${title.textContent} · SAPNet++` : "SAPNet++";
  if (title && !root.contains(document.activeElement) && !document.querySelector("dialog[open]")) {
    title.tabIndex = -1;
    title.focus({ preventScroll: true });
  }
}

function mark(path) {
  for (const link of document.querySelectorAll("#nav a")) {
    const here = path === link.dataset.path || path.startsWith(`${link.dataset.path}/`);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

const THEMES = { auto: "the system's", light: "light", dark: "dark" };
const DRAWINGS = { auto: "auto", light: "sun", dark: "moon" };

function theme() {
  const node = document.getElementById("theme");
  const showTheme = () => {
    const now = document.documentElement.dataset.theme ?? "auto";
    const label = `Theme: ${THEMES[now]}. Change it`;
    node.setAttribute("aria-label", label);
    node.title = label;
    fill(node, icon(DRAWINGS[now]));
  };
  node.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const now = document.documentElement.dataset.theme ?? "auto";
    const next = names[(names.indexOf(now) + 1) % names.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("sapnet-theme", next);
    } catch {
      // it lasts as long as the page, then
    }
    showTheme();
  });
  showTheme();
}

/* login: where people log in, where they may. Their place on the page is kept for when they are back. */
asks.askForKey = (why, login) => {
  setKey(null);
  return dialog(login ? "Log in" : "A key is needed", (close) => {
    const input = h("input", { type: "password", autocomplete: "off", required: true, autofocus: true, spellcheck: "false" });
    const send = (event) => {
      event.preventDefault();
      close(input.value.trim());
    };
    const leave = () => {
      sessionStorage.setItem(PLACE, location.hash);
      location.assign(address(login));
    };
    return h("form", { class: "stack", onsubmit: send },
      login && button("Log in", leave, { class: "primary" }),
      h("p", null, "This service answers those alone who have a key. One is made on its machine: ", h("code", null, "sapnet-service keys create NAME")),
      why && h("p", { class: "hint" }, `It said: ${why}`),
      field("Key", input, "It is kept until this tab is closed, and sent to this service alone."),
      h("div", { class: "row end" }, button("Not now", () => close(), { class: "quiet" }), h("button", { class: "primary" }, "Use it")));
  });
};

/* Who is logged in by a cookie, which no script can read; another says whose it is. */
function loggedIn() {
  const name = /(?:^|; )sapnet_login=([0-9a-f]+)/.exec(document.cookie)?.[1];
  if (!name) return;
  const owner = name.replace(/../g, (code) => String.fromCharCode(parseInt(code, 16)));
  const out = async () => {
    const { provider } = await post("/auth/logout");
    location.assign(provider ?? address("/"));
  };
  document.getElementById("theme").before(button("Log out", out, { class: "quiet", title: `Logged in as ${owner}` }));
  const kept = sessionStorage.getItem(PLACE);
  sessionStorage.removeItem(PLACE);
  if (kept && !location.hash) location.replace(kept);
}

fill(document.getElementById("nav"), NAVIGATION.map(([path, name]) => h("a", { href: `#${path}`, "data-path": path }, name)));
theme();
loggedIn();
addEventListener("hashchange", changed);
addEventListener("showagain", changed);
route(here);

