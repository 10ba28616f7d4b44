// Map: one t-SNE at a time; colour and shape show the class, hover shows the clip, a click plays it.
function chosenMap() {
  return data("map").maps[Number(document.getElementById("map-name").value)];
}
makers.map = (element) => {
  const one = chosenMap(), task = data("map").tasks[one.task];
  const groups = new Map();
  one.clips.forEach((clip, at) => {
    const label = task.labels[clip];
    if (!groups.has(label)) groups.set(label, []);
    groups.get(label).push(at);
  });
  const order = Array.from(groups.keys()).sort((a, b) => a - b);
  const traces = order.map((label, number) => {
    const look = style(number), points = groups.get(label), name = task.classes[label] || "class " + label;
    return {
      type: "scatter", mode: "markers", name: plain(name), x: points.map((at) => one.x[at]), y: points.map((at) => one.y[at]), customdata: points.map((at) => one.clips[at]),
      marker: { color: look.color, symbol: look.symbol, size: 8, line: { color: colour("text"), width: points.map((at) => (task.sounds[one.clips[at]] >= 0 ? 1.5 : 0)) } },
      text: points.map((at) => "<b>" + plain(name) + "</b><br>" + plain(task.paths[one.clips[at]]) + (task.sounds[one.clips[at]] >= 0 ? "<br>click to play" : "")), hoverinfo: "text",
    };
  });
  const bare = { showticklabels: false, zeroline: false, showgrid: false, showline: true, mirror: true, ticks: "", range: [-106, 106] };
  const room = legendRoom(element, traces.map((trace) => trace.name)), side = Math.min(element.clientWidth || 600, 640);
  return {
    height: side + room, traces, click: (event) => playClip(task, event.points[0].customdata),
    layout: { legend: { orientation: "h", y: -8 / side, yanchor: "top", x: 0 }, margin: { l: 6, r: 6, t: 6, b: room }, xaxis: bare, yaxis: Object.assign({ scaleanchor: "x" }, bare), showlegend: traces.length <= 60 },
  };
};
function playClip(task, clip) {
  const parts = makePlayer(task.sounds[clip], task.paths[clip]), label = task.classes[task.labels[clip]] || "";
  const words = [make("p", {}, ["label: ", make("strong", {}, label)]), make("p", { class: "name" }, task.paths[clip])];
  if (!parts.length) words.push(make("p", { class: "hint" }, "The page does not hold the sound of this clip."));
  clear(document.getElementById("map-clip"), make("div", { class: "clip" }, [...parts.slice(0, 1), ...words, ...parts.slice(1)]));
  if (parts[1]) parts[1].play().catch(() => {});
}
function showMap() {
  clear(document.getElementById("map-clip"));
  clear(document.getElementById("map-chart"), makeChart("map", 0, "Map of clips, " + chosenMap().name));
}
function fillMaps() {
  const found = data("map"), task = Number(document.getElementById("map-task").value);
  fillMenu(document.getElementById("map-name"), found.maps.map((one, at) => [at, one.name, one.task]).filter((one) => one[2] === task));
  showMap();
}
starters.push(() => {
  const found = data("map");
  if (!found || !found.maps.length) return;
  const used = new Set(found.maps.map((one) => one.task));
  fillMenu(document.getElementById("map-task"), found.tasks.map((task, at) => [at, task.name]).filter((one) => used.has(one[0])));
  onChange(document.getElementById("map-task"), fillMaps);
  onChange(document.getElementById("map-name"), showMap);
  fillMaps();
});
