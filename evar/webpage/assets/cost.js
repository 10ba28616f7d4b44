// Cost: score against one kind of cost, the Pareto front, and all numbers as a table.
const COST_NAMES = ["parameters of the network", "seconds of encoding for a second of audio", "width: numbers that the probe reads of a clip", "bytes per clip in the store"];
function costMenus() {
  return ["table", "score", "kind"].map((name) => Number(document.getElementById("cost-" + name).value));
}
makers.cost = () => {
  const [at, score, kind] = costMenus(), table = data("cost").tables[at];
  const points = table.rows.filter((row) => row.costs[kind] !== null && row.scores[score] !== null).map((row) => ({ row, x: row.costs[kind], y: row.scores[score] }));
  if (!points.length) return null;
  points.sort((a, b) => a.x - b.x || b.y - a.y);
  let best = -Infinity;
  const front = points.filter((point) => (point.y > best ? ((best = point.y), true) : false));
  const positive = points.every((point) => point.x > 0);
  return {
    height: 420,
    traces: [
      { type: "scatter", mode: "lines", x: front.map((p) => p.x), y: front.map((p) => p.y), line: { color: colour("s2"), width: 1.5, shape: "hv" }, hoverinfo: "skip", name: "Pareto front" },
      {
        type: "scatter", mode: "markers+text", x: points.map((p) => p.x), y: points.map((p) => p.y), name: "rows", textposition: "top center", textfont: { size: 11 }, cliponaxis: false,
        text: points.map((p) => (points.length <= 20 || front.includes(p) ? plain(p.row.name) : "")),
        marker: { size: 10, color: points.map((p) => (front.includes(p) ? colour("s2") : colour("s1"))) },
        hovertext: points.map((p) => "<b>" + plain(p.row.name) + "</b><br>score " + percent(p.y) + " %<br>" + plain(COST_NAMES[kind]) + ": " + plain(p.row.texts[kind]) + (kind === 1 && p.row.where ? "<br>" + plain(p.row.where) : "")), hoverinfo: "text",
      },
    ],
    layout: {
      showlegend: false, margin: { l: 50, r: 60, t: 30, b: 50 },
      xaxis: { title: { text: COST_NAMES[kind] + (positive ? " (log)" : "") }, type: positive ? "log" : "linear" },
      yaxis: { title: { text: "score (%)" } },
    },
  };
};
function showCost() {
  const [at, score, kind] = costMenus(), table = data("cost").tables[at];
  const name = score === 0 ? "average" : table.columns[score - 1];
  const none = table.rows.every((row) => row.costs[kind] === null || row.scores[score] === null);
  clear(document.getElementById("cost-chart"), none ? make("p", { class: "hint" }, "No row of this table has both numbers.") : makeChart("cost", 0, "Score against cost"));
  const lines = table.rows.map((row) => [row.name, { text: percent(row.scores[score]), sort: row.scores[score] === null ? -1 : row.scores[score] }, ...row.texts.map((text, one) => ({ text, sort: row.costs[one] === null ? 1e18 : row.costs[one] }))]);
  clear(document.getElementById("cost-numbers"), makeTable([["row", "text"], [name + " (%)", "high"], ...data("cost").headings.map((heading) => [heading, "low"])], lines, true));
}
function fillCostScores() {
  const table = data("cost").tables[costMenus()[0]];
  const averaged = table.rows.some((row) => row.scores[0] !== null);
  fillMenu(document.getElementById("cost-score"), [...(averaged ? [[0, "average over tasks"]] : []), ...table.columns.map((name, at) => [at + 1, name])]);
  showCost();
}
starters.push(() => {
  const found = data("cost");
  if (!found) return;
  fillMenu(document.getElementById("cost-table"), found.tables.map((table, at) => [at, table.title]));
  const measured = [0, 1, 2, 3].filter((kind) => found.tables.some((table) => table.rows.some((row) => row.costs[kind] !== null)));
  fillMenu(document.getElementById("cost-kind"), measured.map((kind) => [kind, COST_NAMES[kind]]));
  onChange(document.getElementById("cost-table"), fillCostScores);
  onChange(document.getElementById("cost-score"), showCost);
  onChange(document.getElementById("cost-kind"), showCost);
  fillCostScores();
});
