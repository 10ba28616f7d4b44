// One row: menus of task and row, then facts, confusions, classes, calibration, rounds, settings.
let shownRow = null;
function rowsOf(task) {
  return data("row").rows.filter((row) => row.task === task);
}
function chooseTask(task) {
  document.getElementById("row-task").value = task;
  fillMenu(document.getElementById("row-name"), rowsOf(task).map((row) => [row.id, row.name + "  " + row.score]));
}
function showRow(id) {
  const row = data("row").rows.find((one) => one.id === id);
  if (!row) return false;
  shownRow = row;
  chooseTask(row.task);
  document.getElementById("row-name").value = id;
  const parts = [make("h3", {}, row.name + " on " + row.task), make("p", {}, ["Score ", make("strong", {}, row.score), " %"])];
  if (row.problem) parts.push(make("p", { class: "hint" }, row.problem));
  if (row.confusions) parts.push(make("h4", {}, "Confusion matrix (clips; rows are true classes)"), makeMatrix(row));
  if (row.classes) {
    const number = (value) => ({ text: value === null ? "-" : percent(100 * value), sort: value === null ? -1 : value });
    const lines = row.classes.map((one) => [one[0], one[1], number(one[2]), number(one[3]), number(one[4]), one[5] ? one[5] + " (" + one[6] + ")" : "-"]);
    parts.push(make("h4", {}, "Classes"), makeTable([["class", "text"], ["clips", "high"], ["recall %", "low"], ["precision %", "low"], ["F1 %", "low"], ["taken for most", "text"]], lines, true));
  }
  if (row.calibration && row.calibration.length) parts.push(make("h4", {}, "Calibration"), make("p", { class: "hint" }, "How often the row was right (bars) where it was so sure (axis). On the line it is as sure as it should be."), makeChart("calibration", 0, "Calibration of " + row.name));
  if (row.rounds.length) {
    const lines = row.rounds.map((one) => one.map((value, at) => (at === 0 ? value : { text: value === null || value === undefined ? "-" : at === 1 || at === 5 ? percent(value) : String(value), sort: value === null ? -1 : value })));
    parts.push(make("h4", {}, "Rounds"), makeTable([["round", "text"], ["score", "high"], ["train", "high"], ["valid", "high"], ["test", "high"], ["validation score", "high"], ["strength", "high"]], lines, true));
  }
  const facts = make("dl", { class: "facts" });
  for (const [name, text] of row.facts) facts.append(make("dt", {}, name), make("dd", {}, text));
  parts.push(make("h4", {}, "Facts"), facts, make("details", { class: "more" }, [make("summary", {}, "All settings"), make("pre", { tabindex: "0" }, row.settings)]));
  parts.push(make("h4", {}, "Compute it again"), make("pre", { tabindex: "0" }, row.command));
  clear(document.getElementById("row-shown"), ...parts);
  return true;
}
function makeMatrix(row) {
  const names = row.classes.map((one) => one[0]), counts = new Map(row.confusions.map(([t, p, n]) => [t + " " + p, n]));
  const unread = row.confusions.some(([, p]) => p >= names.length);
  const columns = unread ? [...names, "(unreadable)"] : names;
  const accent = colour("s1");
  const head = make("tr", {}, [make("th", { scope: "col" }, "true class"), ...columns.map((name) => make("th", { scope: "col" }, make("span", {}, name)))]);
  const body = names.map((name, t) => {
    const total = row.classes[t][1];
    return make("tr", {}, [make("th", { scope: "row" }, name + " (" + total + ")"), ...columns.map((taken, p) => {
      const n = counts.get(t + " " + p) || 0, cell = make("td", {});
      if (!n) return cell;
      const share = n / Math.max(1, total), words = n + " of " + total + " clips of " + name + " taken for " + taken + " (" + percent(100 * share) + " %)";
      const button = make("button", { type: "button", "data-tip": words, "aria-label": words }, String(n));
      button.style.backgroundColor = "color-mix(in srgb, " + accent + " " + Math.round(8 + 72 * share) + "%, transparent)";
      if (share > 0.55) button.style.color = "#fff";
      button.addEventListener("click", () => listenTo(row, t, p < names.length ? p : -1));
      cell.append(button);
      return cell;
    })]);
  });
  const table = make("table", { class: "matrix" }, [make("thead", {}, head), make("tbody", {}, body)]);
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Confusion matrix" }, table);
}
makers.calibration = () => {
  if (!shownRow || !shownRow.calibration) return null;
  const bins = shownRow.calibration, x = bins.map((bin) => bin[0]);
  return {
    height: 300,
    traces: [
      { type: "bar", x, y: bins.map((bin) => bin[1]), width: 7, marker: { color: colour("s1") }, text: bins.map((bin) => "mean confidence " + percent(bin[0]) + " %<br>right " + percent(bin[1]) + " %<br>n = " + bin[2]), textposition: "none", hoverinfo: "text" },
      { type: "scatter", mode: "lines", x: [0, 100], y: [0, 100], line: { color: colour("soft"), dash: "dot" }, hoverinfo: "skip" },
    ],
    layout: { showlegend: false, xaxis: { title: { text: "mean confidence (%)" }, range: [0, 102] }, yaxis: { title: { text: "right (%)" }, range: [0, 102] } },
  };
};
starters.push(() => {
  const found = data("row");
  if (!found) return;
  const tasks = Array.from(new Set(found.rows.map((row) => row.task)));
  const menu = document.getElementById("row-task"), names = document.getElementById("row-name");
  fillMenu(menu, tasks.map((task) => [task, task]));
  onChange(menu, () => { chooseTask(menu.value); showRow(rowsOf(menu.value)[0].id); });
  onChange(names, () => showRow(names.value));
  document.querySelectorAll("button.score").forEach((button) => button.addEventListener("click", () => {
    if (showRow(button.dataset.row)) document.getElementById("row").scrollIntoView();
  }));
  showRow(found.rows[0].id);
});
