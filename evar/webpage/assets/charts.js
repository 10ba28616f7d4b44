// Charts by plotly.js: drawn when they come into sight, anew when the theme changes, all of them before printing.
const makers = {};
const seen = new Map();
// plotly.js reads some markup in texts; this is the only way by which texts of others get there.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\$/g, "&#36;");
}
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];
function style(number) {
  const at = number % 8, lap = Math.floor(number / 8);
  return { color: colour("s" + (at + 1)), dash: ["solid", "dash", "dot", "dashdot"][lap % 4], symbol: SYMBOLS[(at + lap) % SYMBOLS.length] };
}
// Room below a chart for a legend of so many names of about so many characters.
function legendRoom(element, names) {
  const longest = Math.max(4, ...names.map((name) => name.length)), width = element.clientWidth || 600;
  return 16 + 21 * Math.ceil(names.length / Math.max(1, Math.floor((width - 40) / (7.2 * longest + 52))));
}
function layout(more) {
  const text = colour("text"), line = colour("line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, title: { standoff: 8 } };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, family: "system-ui, sans-serif", size: 13 },
    margin: { l: 50, r: 14, t: 14, b: 44 }, hovermode: "closest", hoverlabel: { align: "left", bgcolor: colour("panel"), bordercolor: line, font: { color: text } },
    legend: { orientation: "h", y: -0.22, yanchor: "top", x: 0 },
  };
  const out = Object.assign(base, more);
  for (const name of ["xaxis", "yaxis"]) out[name] = Object.assign({}, axis, more[name] || {}, { title: Object.assign({ standoff: 8 }, (more[name] || {}).title) });
  return out;
}
function draw(element) {
  const maker = makers[element.dataset.chart];
  if (!maker) return;
  const made = maker(element);
  if (!made) { clear(element); return; }
  element.style.height = (made.height || 340) + "px";
  made.layout.height = made.height || 340;
  Plotly.react(element, made.traces, layout(made.layout), { displayModeBar: false, responsive: true }).then(() => {
    if (made.click && !seen.get(element)) element.on("plotly_click", (event) => makers[element.dataset.chart](element).click(event));
    seen.set(element, true);
  });
}
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && !seen.has(entry.target)) {
      seen.set(entry.target, false);
      draw(entry.target);
    }
  }
}, { rootMargin: "300px" });
function watch(element) {
  seen.delete(element);
  watcher.unobserve(element);
  watcher.observe(element);
}
function makeChart(name, index, label) {
  const element = make("div", { class: "chart", role: "img", "aria-label": label });
  element.dataset.chart = name;
  element.dataset.index = index;
  watch(element);
  return element;
}
function redrawAll() {
  for (const element of seen.keys()) if (element.isConnected) draw(element);
}
function drawEverything() {
  document.querySelectorAll(".chart").forEach((element) => {
    if (!seen.has(element) && element.offsetParent !== null) { seen.set(element, false); draw(element); }
  });
}
makers.ranks = (element) => {
  const found = data("summary").ranks[Number(element.dataset.index)];
  const half = found.critical / 2, count = found.names.length;
  return {
    height: 90 + 24 * count,
    traces: [{
      type: "scatter", mode: "markers", x: found.ranks, y: found.names.map((_, at) => at),
      error_x: { type: "constant", value: half, color: colour("s1"), thickness: 2, width: 5 },
      marker: { size: 10, color: colour("s1") },
      text: found.names.map((name, at) => plain(name) + "<br>mean rank " + found.ranks[at].toFixed(2)), hoverinfo: "text",
    }],
    layout: {
      showlegend: false,
      xaxis: { title: { text: "mean rank" }, range: [Math.min(0.5, found.ranks[0] - half - 0.2), Math.max(count, found.ranks[count - 1] + half) + 0.2] },
      yaxis: { tickvals: found.names.map((_, at) => at), ticktext: found.names.map(plain), autorange: "reversed" },
    },
  };
};
