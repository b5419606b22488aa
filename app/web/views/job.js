/* A job: where it is, how far, how it goes; live over its events. */

import { events, get, post, request } from "../core/api.js";
import { Curves } from "../core/chart.js";
import { announce, button, confirm, fill, h, icon, toast } from "../core/dom.js";
import { duration, percent, reference, short, when } from "../core/format.js";
import { DELIVERING } from "../viewer/masks.js";
import { TONES, inWords, successful } from "./jobs.js";

const ACTIVE = ["queued", "running", "cancelling"];

export async function show(root, params, { signal }) {
  const [job, { kinds }] = await Promise.all([get(`/jobs/${params.id}`, { signal }), get("/jobs/kinds", { signal })]);
  const dataset = job.dataset_id && (await get(`/datasets/${job.dataset_id}`, { signal }).catch(() => null));
  const view = new JobView(job, kinds.find(({ kind }) => kind === job.kind), dataset, signal);
  fill(root, view.element);
  view.follow().catch((error) => signal.aborted || toast(error.message, "bad"));
}

class JobView {
  constructor(job, kind, dataset, signal) {
    Object.assign(this, { job, kind, signal, stageStatus: new Map(), announcedTenth: -1 });
    const title = job.kind === "train" ? `Training ${dataset?.name ?? short(job.dataset_id)}` : job.kind === "import" ? `Import of ${dataset?.name ?? short(job.dataset_id)}` : kind.label;
    this.state = h("span", { class: "badge" });
    this.actions = h("div", { class: "row" });
    this.why = h("div");
    this.stages = h("ol", { class: "plain stepper", "aria-label": "Stages" });
    this.title = title;
    this.bar = h("progress", { max: 1, "aria-label": "Progress of the whole job" });
    this.share = h("strong", { class: "number share" });
    this.now = h("span");
    this.eta = h("span", { class: "number hint" });
    this.live = h("span", { class: "badge", hidden: true }, "connecting again …");
    this.charts = new Map(); // by stage: each counts its own steps
    this.warnings = h("ul", { class: "stack tight inset" });
    this.warned = h("section", { class: "card stack", hidden: true }, h("h2", null, icon("warn"), " Warnings"), this.warnings);
    this.log = h("pre", { class: "log", tabindex: "0", "aria-label": "Log of the trainer" });
    this.logs = h("details", { class: "card", ontoggle: () => this.#readLog() }, h("summary", null, "Log"), this.log);
    this.facts = h("dl", { class: "facts" });
    this.losses = h("section", { class: "card stack", hidden: true }, h("h2", null, "Losses"));
    this.validation = h("section", { class: "card stack", hidden: true }, h("h2", null, "Validation"));
    this.element = h("div", { class: "stack" },
      h("div", { class: "row spread" }, h("div", { class: "row" }, h("h1", null, title), this.state), this.actions),
      this.why,
      h("div", { class: "split" },
        h("div", { class: "stack" },
          h("section", { class: "card stack", "aria-label": "Progress" }, this.stages,
            h("div", { class: "row spread" }, h("span", { class: "row" }, this.share, this.now, this.live), this.eta), this.bar),
          this.validation, this.losses, this.warned, this.logs),
        h("aside", { class: "card stack", "aria-label": "About this job" }, h("h2", null, "About"), this.facts,
          dataset && h("a", { href: `#/datasets/${dataset.id}` }, `Data set ${dataset.name}`))));
    this.#draw();
  }

  async follow() {
    const onlive = (live) => (this.live.hidden = live || !ACTIVE.includes(this.job.state));
    for await (const event of events(this.job.id, { signal: this.signal, onlive })) this.#take(event);
    if (this.signal.aborted) return;
    this.job = await get(`/jobs/${this.job.id}`, { signal: this.signal });
    this.#draw();
    if (this.logs.open) this.#readLog();
  }

  #take({ type, data, attempt }) {
    const { job } = this;
    if (type === "state") Object.assign(job, { state: data.state, reason: data.reason });
    if (type === "stage") {
      this.stageStatus.set(data.stage, data.status);
      if (data.status === "started") Object.assign(job, { stage: data.stage, step: null, of: null, eta_seconds: null });
      if (job.preset === "auto") this.#readPreset();
      if (ACTIVE.includes(job.state)) announce(`${this.#label(data.stage)} ${data.status}`);
    }
    if (type === "progress") {
      Object.assign(job, data);
      if (data.losses) this.#chart(this.losses, data.stage, this.#label(data.stage)).add(data.step, data.losses);
      this.#tellShare();
    }
    if (type === "validation") this.#chart(this.validation, "", `Images held out, against ${reference(data.against)}`).add(data.step, data.figures);
    if (type === "warning" && !job.warnings.includes(data.message)) job.warnings = [...job.warnings, data.message];
    if (type === "setback") job.warnings = [...job.warnings, `Attempt ${attempt} broke off (${data.error}); it goes on from there.`];
    if (type === "cancel_requested") job.state = "cancelling";
    if (type === "end") {
      Object.assign(job, { state: data.state, reason: data.reason, error: data.error, model_id: data.model_id });
      announce(`The job has ${inWords(data.state)}.`);
    }
    this.#soon();
  }

  /* The training has chosen it since the page was opened. */
  async #readPreset() {
    const { preset, preset_reasons } = await get(`/jobs/${this.job.id}`, { signal: this.signal }).catch(() => this.job);
    Object.assign(this.job, { preset, preset_reasons });
    this.#soon();
  }

  #label(stage) {
    return this.kind.stages.find(({ name }) => name === stage)?.label ?? stage;
  }

  #chart(section, key, label) {
    if (!this.charts.has(key)) {
      const chart = new Curves(label);
      this.charts.set(key, chart);
      section.hidden = false;
      section.firstChild.after(chart.element); // the newest stage on top
    }
    return this.charts.get(key);
  }

  /* Screen readers hear of each tenth. */
  #tellShare() {
    const tenth = Math.floor(this.job.progress * 10);
    if (tenth > this.announcedTenth && this.announcedTenth >= 0 && ACTIVE.includes(this.job.state)) announce(percent(this.job.progress));
    this.announcedTenth = Math.max(this.announcedTenth, tenth);
  }

  #soon() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.#draw();
    });
  }

  #draw() {
    const { job } = this;
    const active = ACTIVE.includes(job.state);
    const share = successful(job.state) ? 1 : job.progress;
    this.state.textContent = inWords(job.state);
    this.state.dataset.tone = TONES[job.state];
    this.bar.value = share;
    this.share.textContent = percent(share);
    if (!this.signal.aborted) document.title = active ? `${percent(share)} ${this.title}` : `${inWords(job.state)}: ${this.title}`;
    this.now.textContent = active ? this.#doing() : job.finished_at ? `ended ${when(job.finished_at)}` : "";
    this.eta.textContent = active && job.eta_seconds ? `about ${duration(job.eta_seconds)} to the end of this stage` : "";
    this.#drawStages();
    this.#drawActions();
    this.#drawFacts();
    fill(this.why, job.error && h("div", { class: job.state === "failed" ? "problem" : "note" }, h("strong", null, job.state === "failed" ? "It failed" : "What happened"), h("p", null, job.error)));
    this.warned.hidden = job.warnings.length === 0;
    if (this.warnings.childElementCount !== job.warnings.length) fill(this.warnings, job.warnings.map((text) => h("li", null, text)));
  }

  #doing() {
    const { job } = this;
    if (job.state === "queued") return "waits for a worker";
    if (job.state === "cancelling") return "stops …";
    if (!job.stage) return "begins";
    return `${this.#label(job.stage)}${job.of ? `, step ${job.step.toLocaleString("en")} of ${job.of.toLocaleString("en")}` : ""}`;
  }

  #drawStages() {
    const { job } = this;
    const at = this.kind.stages.findIndex(({ name }) => name === job.stage);
    const over = successful(job.state);
    fill(this.stages, this.kind.stages.map(({ name, label, optional }, i) => {
      if (optional && !this.stageStatus.has(name) && at > i) return null; // it was left out
      const done = over || i < at || this.stageStatus.get(name) === "ended";
      const current = !over && name === job.stage;
      const broke = current && ["failed", "cancelled"].includes(job.state);
      const state = broke ? "broke" : done && !current ? "done" : current ? "now" : "later";
      const words = { broke: "stopped here", done: "done", now: "at work", later: "not yet" };
      return h("li", { "data-state": state, "aria-current": current ? "step" : null }, h("span", { class: "knot", "aria-hidden": "true" }, state === "done" && icon("check"), state === "broke" && icon("cross")), h("span", null, label), h("span", { class: "unseen" }, `: ${words[state]}`));
    }));
  }

  /* Built anew with the state alone: a button that has the focus keeps it. */
  #drawActions() {
    const { job } = this;
    if (this.acting === job.state) return;
    this.acting = job.state;
    const active = ["queued", "running"].includes(job.state);
    const trained = successful(job.state) && job.kind === "train";
    const masks = successful(job.state) && DELIVERING.includes(job.kind);
    fill(this.actions,
      active && button("Cancel", () => this.#cancel(), { class: "danger" }),
      masks && h("a", { class: trained ? "button" : "button primary", href: `#/jobs/${job.id}/review` }, "Review the masks"),
      trained && button("Label the other images", () => this.#labelOthers(), { title: "The model proposes objects in the images without points; you accept, correct or reject them" }),
      trained && h("a", { class: "button primary", href: `#/jobs/${job.id}/results` }, "See the results"),
      successful(job.state) && job.kind === "import" && h("a", { class: "button primary", href: `#/datasets/${job.dataset_id}` }, "To the data set"),
      successful(job.state) && job.kind === "import_model" && h("a", { class: "button primary", href: "#/models" }, "To the models"));
  }

  async #labelOthers() {
    try {
      const { id } = await post("/jobs/label", { model: this.job.model_id, dataset_id: this.job.dataset_id });
      location.hash = `#/jobs/${id}`;
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  async #cancel() {
    const text = "It stops within seconds. What it has learnt so far is not kept as a model.";
    if (!(await confirm("Cancel this job?", text, "Cancel the job"))) return;
    const { state } = await post(`/jobs/${this.job.id}/cancel`);
    if (ACTIVE.includes(this.job.state)) this.job.state = state; // else it has ended before the answer came
    this.#draw();
  }

  #drawFacts() {
    const { job } = this;
    const took = job.started_at && job.finished_at && (new Date(job.finished_at) - new Date(job.started_at)) / 1000;
    const rows = [
      ["Method", job.kind === "train" && job.method], ["Preset", job.kind === "train" && job.preset], ["Chosen because", job.preset_reasons?.join(" ")], ["Seed", job.kind === "train" && String(job.seed)],
      ["Proposals", job.proposal_generator], ["Weights", job.weights_origin],
      ["Attempt", job.attempt > 1 && String(job.attempt)],
      ["Requested", when(job.created_at)], ["Begun", job.started_at && when(job.started_at)], ["Took", took && duration(took)],
      ...Object.entries(job.tracking ?? {}).map(([tracker, url]) => ["Tracked by", tracked(tracker, url)]),
      ["Job", h("code", null, job.id)],
    ];
    const text = rows.map(([, value]) => value?.textContent ?? value).join();
    if (text === this.factsTold) return;
    this.factsTold = text;
    fill(this.facts, rows.filter(([, value]) => value).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
  }

  async #readLog() {
    const turn = (this.reads = (this.reads ?? 0) + 1);
    while (this.logs.open && !this.signal.aborted && turn === this.reads) {
      const response = await request(`/jobs/${this.job.id}/logs`, { params: { tail: 500 }, headers: { Accept: "text/plain" }, signal: this.signal }).catch(() => null);
      const text = response && (await response.text());
      if (turn !== this.reads) return;
      const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
      this.log.textContent = text || "Nothing was written yet.";
      if (atEnd) this.log.scrollTop = this.log.scrollHeight;
      if (!ACTIVE.includes(this.job.state)) return;
      await new Promise((resolve) => setTimeout(resolve, 2_000));
    }
  }
}

const TRACKERS = { tensorboard: "TensorBoard", mlflow: "MLflow", wandb: "Weights & Biases" };

/* The service's own addresses are relative, those of a tracker's server are not. */
function tracked(tracker, url) {
  const name = TRACKERS[tracker] ?? tracker;
  if (!url) return name;
  if (url.startsWith("/")) return h("a", { href: url.slice(1), download: "" }, `${name} (event file)`);
  return /^https?:/.test(url) ? h("a", { href: url, target: "_blank", rel: "noopener" }, name) : name;
}
