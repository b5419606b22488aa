/* Colours of classes and of states, the same wherever they are drawn, legible on dark and on light.

   colour(index)       [r, g, b] of the class that is `index` in its data set's order of ids.
   css(rgb, alpha)     "rgb(…)"
   byClass(categories) a Map category id -> {index, name, rgb, css}, of [{id, name}]. */

const FIRST = [
  [14, 165, 163], [234, 88, 12], [99, 102, 241], [202, 138, 4], [219, 39, 119],
  [34, 160, 75], [147, 51, 234], [2, 132, 199], [190, 58, 52], [120, 113, 108],
];

export function colour(index) {
  if (index < FIRST.length) return FIRST[index];
  const hue = (index * 137.508) % 360; // the golden angle: neighbours lie far apart
  const part = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (0.5 - 0.32 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4)];
}

export function css([r, g, b], alpha = 1) {
  return `rgb(${r} ${g} ${b} / ${alpha})`;
}

export function byClass(categories) {
  const sorted = [...categories].sort((a, b) => a.id - b.id);
  return new Map(sorted.map((c, index) => [c.id, { index, name: c.name, rgb: colour(index), css: css(colour(index)) }]));
}
