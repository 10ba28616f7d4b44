function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("evar-theme", name); } catch (error) { /* a page from disk may have no storage */ }
  redrawAll();
}
function isDark() {
  const set = document.documentElement.dataset.theme;
  return set ? set === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
}
try {
  const kept = localStorage.getItem("evar-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch (error) { /* as above */ }
document.getElementById("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
// Paper is light: charts are drawn in light colours for it.
let screenTheme;
window.addEventListener("beforeprint", () => {
  screenTheme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  redrawAll();
  drawEverything();
});
window.addEventListener("afterprint", () => {
  if (screenTheme) document.documentElement.dataset.theme = screenTheme; else delete document.documentElement.dataset.theme;
  redrawAll();
});
startTables();
for (const start of starters) start();
document.querySelectorAll(".chart").forEach(watch);
document.documentElement.dataset.ready = "yes";
