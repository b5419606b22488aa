/* "Make a new version and train again from here": the corrections become a data set, and a training
   on it goes on from the weights of this one.

   trainAgain({job, dataset, counts}, signal)   a dialog for the version's name, then that of a training; leads
                                        to the new job, or to the version where none was started. */

import { post } from "../core/api.js";
import { dialog, field, fill, h, problem } from "../core/dom.js";
import { count } from "../core/format.js";
import { train } from "../jobs/train_dialog.js";

export async function trainAgain({ job, dataset, counts }, signal) {
  const made = await dialog("A new version", (close) => {
    const name = h("input", { value: `${dataset.name}, corrected`.slice(0, 200), required: true, maxlength: 200, autofocus: true });
    const errors = h("div");
    const send = h("button", { class: "primary" }, "Make the version");

    async function submit(event) {
      event.preventDefault();
      if (send.getAttribute("aria-busy") === "true") return;
      fill(errors);
      send.setAttribute("aria-busy", "true");
      try {
        close(await post(`/jobs/${job.id}/corrections`, { name: name.value.trim() }));
      } catch (error) {
        fill(errors, problem(error));
      } finally {
        send.removeAttribute("aria-busy");
      }
    }

    return h("form", { class: "stack", onsubmit: submit },
      h("p", null, sentence(counts, job.kind)),
      field("Name of the version", name),
      errors,
      h("div", { class: "row end" }, send));
  });
  if (!made || signal.aborted) return;
  const started = await train(made, { model: job.model_id, preset: job.preset || null, signal });
  if (!started && !signal.aborted) location.hash = `#/datasets/${made.id}`; // no training for now
}

function sentence({ accepted, corrected, rejected, open }, kind) {
  if (kind === "label") return `It has the ${count(accepted + corrected, "object")} that you confirmed beside those that it had; the ${count(rejected, "one")} that you rejected and the ${count(open, "open one")} stay out.`;
  return `It has the ${count(accepted + corrected, "mask")} that you confirmed, leaves out the ${count(rejected, "object")} that you rejected, and of the ${count(open, "open one")} the points.`;
}
