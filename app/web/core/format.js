/* Figures as people read them.

   duration(seconds)   "45 s", "3 min 20 s", "2 h 5 min"
   about(seconds)      "about 40 seconds", "about 12 minutes", "about 3 hours"
   percent(share)      0.256 -> "26 %"
   bytes(n)            "1.4 MB"
   count(n, one, many) "1 image", "12 images"
   when(text)          an ISO time as <time>-ready text: "today, 14:02", "12 Nov, 09:30"
   short(id)           the beginning of an id */

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min${s % 60 ? ` ${s % 60} s` : ""}`;
  const minutes = Math.round((s % 3600) / 60);
  return `${Math.floor(s / 3600)} h${minutes ? ` ${minutes} min` : ""}`;
}

export function about(seconds) {
  if (seconds < 100) return `about ${Math.max(10, Math.round(seconds / 10) * 10)} seconds`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} minutes`;
  return `about ${seconds < 36_000 ? Math.round(seconds / 360) / 10 : Math.round(seconds / 3600)} hours`;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

export function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  for (; n >= 1000 && unit < units.length - 1; unit++) n /= 1000;
  return `${unit && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

export function when(text) {
  const moment = new Date(text);
  const clock = moment.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  if (moment.toDateString() === new Date().toDateString()) return `today, ${clock}`;
  const sameYear = moment.getFullYear() === new Date().getFullYear();
  return `${moment.toLocaleDateString("en-GB", { day: "numeric", month: "short", ...(sameYear ? {} : { year: "numeric" }) })}, ${clock}`;
}

export const short = (id) => id.slice(-8);

/* What a validation is against, with a warning where that is no truth. */
export function reference(against) {
  return against === "delivered masks" ? "delivered masks (agreement, not accuracy)" : against;
}
