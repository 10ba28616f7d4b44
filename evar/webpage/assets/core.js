// Each part adds a function here that fills it.
const starters = [];
// Elements are made by name and text only: no markup and no handler ever comes from data.
const parts = {};
function data(name) {
  if (!(name in parts)) {
    const holder = document.getElementById("data-" + name);
    parts[name] = holder ? JSON.parse(holder.textContent) : null;
  }
  return parts[name];
}
const LEGAL = new Set(["class", "type", "title", "scope", "colspan", "controls", "preload", "alt", "tabindex", "role", "aria-label", "aria-live", "value", "data-sort", "data-tip", "loading"]);
function make(tag, attributes, children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (!LEGAL.has(name)) throw new Error("attribute " + name + " is not set from data");
    element.setAttribute(name, value);
  }
  for (const child of [].concat(children === undefined || children === null ? [] : children)) {
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}
function clear(element, ...children) {
  element.replaceChildren(...children);
  return element;
}
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}
function percent(value) {
  return value === null || value === undefined ? "-" : value.toFixed(1);
}
function onChange(element, act) {
  if (element) element.addEventListener("change", act);
}
function fillMenu(menu, options) {
  clear(menu, ...options.map(([value, text]) => {
    const option = make("option", { value: String(value) }, text);
    return option;
  }));
}
// One tip for the mouse and for the keyboard.
const tip = document.getElementById("tip");
function showTip(target) {
  const holder = target instanceof Element ? target.closest("[data-tip]") : null;
  if (!holder || !holder.dataset.tip) { tip.hidden = true; return; }
  tip.textContent = holder.dataset.tip;
  tip.hidden = false;
  const place = holder.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(place.left, window.innerWidth - own.width - 8));
  const below = place.bottom + 6, above = place.top - own.height - 6;
  tip.style.left = left + "px";
  tip.style.top = (below + own.height > window.innerHeight && above > 0 ? above : below) + "px";
}
document.addEventListener("mouseover", (event) => showTip(event.target));
document.addEventListener("focusin", (event) => showTip(event.target));
document.addEventListener("focusout", () => { tip.hidden = true; });
document.addEventListener("scroll", () => { tip.hidden = true; }, true);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
