// Loaded before the first paint: the theme that was chosen, or none, which is the system's.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("sapnet-theme");
  } catch {
    // storage may be forbidden; then the system's theme it is
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
}
