/* What would be lost by leaving a view, and the question before it is.

   guard(lost, signal)     until the view is left: lost({closing}) says as a sentence what would be lost,
                           or null. `closing`: the tab goes, and what is still being sent with it; else
                           it may give a promise, to wait for what is being written
   await mayLeave()        true where nothing would be lost, or the user lets it go
   Closing the tab asks too, in the browser's own words. */

import { confirm } from "./dom.js";

const guards = new Set();

export function guard(lost, signal) {
  if (signal.aborted) return;
  guards.add(lost);
  signal.addEventListener("abort", () => guards.delete(lost));
}

export async function mayLeave() {
  for (const lost of guards) {
    const text = await lost({ closing: false });
    if (text && guards.has(lost) && !(await confirm("Leave this page?", text, "Leave"))) return false;
  }
  return true;
}

addEventListener("beforeunload", (event) => {
  if (![...guards].some((lost) => lost({ closing: true }))) return;
  event.preventDefault();
  event.returnValue = true; // older browsers ask for this alone
});
