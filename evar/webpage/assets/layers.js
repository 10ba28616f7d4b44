// Layers: one curve or heat map a task, all numbers as a table, hints of one encoder on one task.
function layerTip(name, point, metric) {
  const interval = point[3] === null ? "" : "<br>95 % interval " + percent(point[3]) + " to " + percent(point[4]);
  return "<b>" + plain(name) + "</b> " + plain(point[0]) + (point[5] ? " (default)" : "") + "<br>" + plain(metric) + " " + percent(point[2]) + " %" + interval + "<br>n = " + point[6];
}
makers.curves = (element) => {
  const panel = data("layers").panels[Number(element.dataset.index)];
  const order = panel.curves.map((curve) => Math.max(...curve.points.map((point) => point[2]))).map((best, at) => [best, at]).sort((a, b) => b[0] - a[0]);
  const main = new Set(order.slice(0, 10).map(([, at]) => at));
  const traces = panel.curves.map((curve, at) => {
    const look = style(at), single = curve.points.length === 1;
    const points = single ? [[0], [1]].map(([depth]) => Object.assign([], curve.points[0], { 1: depth })) : curve.points;
    return {
      type: "scatter", mode: single ? "lines" : "lines+markers", name: plain(curve.name), visible: main.has(at) ? true : "legendonly",
      x: points.map((point) => point[1]), y: points.map((point) => point[2]),
      error_y: single ? undefined : { type: "data", symmetric: false, array: points.map((p) => (p[4] === null ? 0 : p[4] - p[2])), arrayminus: points.map((p) => (p[3] === null ? 0 : p[2] - p[3])), thickness: 1, width: 0, color: look.color },
      line: { color: look.color, width: single ? 1.5 : 2, dash: single ? "dash" : look.dash },
      marker: { color: points.map((p) => (p[5] ? colour("back") : look.color)), size: points.map((p) => (p[5] ? 11 : 6)), symbol: look.symbol, line: { color: look.color, width: points.map((p) => (p[5] ? 2.5 : 0)) } },
      text: points.map((point) => layerTip(curve.name, point, panel.metric)), hoverinfo: "text",
    };
  });
  const shapes = panel.chance === null ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: panel.chance, y1: panel.chance, line: { color: colour("soft"), dash: "dot", width: 1.5 } }];
  const room = legendRoom(element, panel.curves.map((curve) => curve.name));
  return { height: 320 + room, traces, layout: { shapes, margin: { l: 50, r: 14, t: 10, b: 50 + room }, legend: { orientation: "h", y: -56 / 260, yanchor: "top", x: 0 }, xaxis: { title: { text: "relative depth" }, range: [-0.02, 1.04] }, yaxis: { title: { text: panel.metric + " (%)" } } } };
};
makers.heat = (element) => {
  const panel = data("layers").panels[Number(element.dataset.index)];
  const curves = panel.curves.filter((curve) => curve.points.length > 1);
  const most = Math.max(...curves.map((curve) => curve.points.length));
  const at = (curve, column) => curve.points[column] || null;
  const columns = Array.from({ length: most }, (_, column) => column);
  const grid = (read) => curves.map((curve) => columns.map((column) => (at(curve, column) ? read(curve, at(curve, column)) : null)));
  return {
    height: 120 + 30 * curves.length,
    traces: [{
      type: "heatmap", x: columns, y: curves.map((_, row) => row), z: grid((_, point) => point[2]),
      zmin: panel.chance === null ? 0 : panel.chance, zmax: 100, colorscale: "Viridis", xgap: 1, ygap: 1,
      text: grid((curve, point) => layerTip(curve.name, point, panel.metric)), hoverinfo: "text",
      texttemplate: most <= 14 ? "%{z:.0f}" : undefined, colorbar: { thickness: 10, ticksuffix: " %", outlinewidth: 0 },
    }],
    layout: {
      xaxis: { title: { text: "layer, shallow to deep (colour from chance to 100 %)" }, tickvals: columns, ticktext: columns.map((column) => String(column)), showgrid: false },
      yaxis: { tickvals: curves.map((_, row) => row), ticktext: curves.map((curve) => plain(curve.name)), autorange: "reversed", showgrid: false },
    },
  };
};
function showLayers() {
  const panels = data("layers").panels, kind = document.getElementById("layers-kind").value;
  const task = document.getElementById("layers-task").value;
  const shown = panels.map((_, at) => at).filter((at) => task === "all" || at === Number(task));
  clear(document.getElementById("layers-charts"), ...shown.map((at) => make("div", { class: "card" }, [
    make("h4", {}, panels[at].title), makeChart(kind, at, "Scores of layers, " + panels[at].title),
  ])));
}
function showLayerNumbers() {
  const lines = [];
  for (const panel of data("layers").panels) {
    for (const curve of panel.curves) for (const p of curve.points) {
      lines.push([curve.name, panel.title, p[0] + (p[5] ? " (default)" : ""), { text: p[1].toFixed(2), sort: p[1] }, { text: percent(p[2]), sort: p[2] }, p[3] === null ? "-" : percent(p[3]) + " to " + percent(p[4]), p[6]]);
    }
  }
  const shown = lines.slice(0, 2000);
  const table = makeTable([["encoder", "text"], ["task", "text"], ["layer", "text"], ["depth", "low"], ["score", "high"], ["95 % interval", "text"], ["n", "high"]], shown, true);
  clear(document.getElementById("layers-numbers"), lines.length > shown.length ? make("p", { class: "hint" }, "The first " + shown.length + " of " + lines.length + " lines; layers.csv has them all.") : "", table);
}
function showHints() {
  const found = data("layers").hints[Number(document.getElementById("hints-menu").value)];
  const headings = [["layer", "text"], ["width", "high"], ["score", "high"], ...found.columns.map((name) => [name, "high"])];
  const lines = found.lines.map((line) => line.map((value, at) => (at < 2 ? value : { text: value === null ? "-" : at === 2 ? percent(value) : value.toFixed(2), sort: value === null ? -1e9 : value })));
  const text = found.columns.map((name, at) => name + " " + (found.correlations[at] === null ? "not defined" : found.correlations[at].toFixed(2))).join(", ");
  clear(document.getElementById("hints-table"), makeTable(headings, lines, true), make("p", { class: "hint" }, "Spearman with the score: " + text + "."));
}
starters.push(() => {
  const found = data("layers");
  if (!found) return;
  if (found.panels.length) {
    fillMenu(document.getElementById("layers-task"), [["all", "all tasks"], ...found.panels.map((panel, at) => [at, panel.title])]);
    onChange(document.getElementById("layers-task"), showLayers);
    onChange(document.getElementById("layers-kind"), showLayers);
    showLayers();
    const numbers = document.getElementById("layers-numbers");
    numbers.closest("details").addEventListener("toggle", () => { if (!numbers.firstChild) showLayerNumbers(); });
  }
  if (found.hints.length) {
    fillMenu(document.getElementById("hints-menu"), found.hints.map((one, at) => [at, one.name]));
    onChange(document.getElementById("hints-menu"), showHints);
    showHints();
  }
});
