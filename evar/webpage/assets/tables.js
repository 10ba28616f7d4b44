// Tables: sort by a click on a heading, filter by text, show published rows.
function sortTable(table, column, kind) {
  const heading = table.tHead.rows[0].cells[column];
  const first = kind === "high" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const keyed = Array.from(table.tBodies[0].rows, (row) => {
    const text = row.cells[column].dataset.sort;
    return [kind === "text" ? text : Number(text), row];
  });
  keyed.sort(([a], [b]) => sign * (kind === "text" ? a.localeCompare(b) : a - b));
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}
function addSorting(table) {
  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    const button = cell.querySelector("button");
    if (button) button.addEventListener("click", () => sortTable(table, column, button.dataset.kind));
  });
}
function filterTable(article) {
  const wanted = article.querySelector(".filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const box = article.querySelector("input.published");
  let shown = 0, all = 0;
  for (const row of article.querySelector("table").tBodies[0].rows) {
    const text = (row.cells[0].textContent + " " + row.cells[1].textContent).toLowerCase();
    const legal = !row.classList.contains("of-others") || (box && box.checked);
    const fits = wanted.every((word) => text.includes(word));
    row.hidden = !(legal && fits);
    all += legal ? 1 : 0;
    shown += legal && fits ? 1 : 0;
  }
  article.querySelector(".count").textContent = wanted.length ? shown + " of " + all + " rows" : all + " rows";
}
function startTables() {
  document.querySelectorAll("table.sortable").forEach(addSorting);
  document.querySelectorAll("article.table").forEach((article) => {
    article.querySelector(".filter").addEventListener("input", () => filterTable(article));
    onChange(article.querySelector("input.published"), () => filterTable(article));
    filterTable(article);
  });
}
// A table from headings [text, kind] and lines of cells: text, or {text, sort, tip, class}.
function makeTable(headings, lines, sortable) {
  const head = make("tr", {}, headings.map(([text, kind]) => make("th", { scope: "col", class: kind === "text" ? "" : "number" },
    sortable ? [withKind(make("button", { type: "button" }, text), kind)] : text)));
  const body = make("tbody", {}, lines.map((line) => make("tr", {}, line.map((cell, at) => {
    const one = cell !== null && typeof cell === "object" && !(cell instanceof Node) ? cell : { text: cell, sort: cell };
    const classes = ((headings[at][1] === "text" ? "" : "number ") + (one.class || "")).trim();
    const made = make(at ? "td" : "th", { class: classes, "data-sort": String(one.sort === undefined ? one.text : one.sort) }, one.text);
    if (!at) made.setAttribute("scope", "row");
    if (one.tip) { made.dataset.tip = one.tip; made.tabIndex = 0; }
    return made;
  }))));
  const table = make("table", {}, [make("thead", {}, head), body]);
  if (sortable) addSorting(table);
  return make("div", { class: "scroll", tabindex: "0", role: "region" }, table);
}
function withKind(button, kind) {
  button.dataset.kind = kind;
  return button;
}
