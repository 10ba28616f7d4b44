// Listen: clips that a row gets wrong, or on which it and another disagree; each with its sound where there is one.
const PAGE = 24;
let listened = { task: 0, positions: [], shown: 0 };
function menuNumber(name) {
  return Number(document.getElementById("listen-" + name).value);
}
function isRight(task, row, at) {
  return task.labels[at].includes(task.predicted[row][at]);
}
function className(task, number) {
  return number < 0 ? "(unreadable)" : task.classes[number];
}
function chooseClips() {
  const task = data("listen").tasks[menuNumber("task")], row = menuNumber("row"), other = menuNumber("other");
  const label = menuNumber("class"), taken = menuNumber("taken"), sounding = document.getElementById("listen-sound").checked;
  const fits = (at) => {
    if (label >= 0 && !task.labels[at].includes(label)) return false;
    if (taken > -2 && task.predicted[row][at] !== taken) return false;
    if (sounding && task.sounds[at] < 0) return false;
    if (other >= 0) return isRight(task, row, at) !== isRight(task, other, at);
    return taken > -2 || !isRight(task, row, at);
  };
  const positions = task.clips.map((_, at) => at).filter(fits);
  const sure = (at) => Math.max(task.confidence[row][at], other >= 0 ? task.confidence[other][at] : -1);
  positions.sort((a, b) => sure(b) - sure(a));
  listened = { task, positions, shown: 0 };
  clear(document.getElementById("listen-clips"));
  showTest(task, row, other);
  const total = task.rows[row].n_wrong;
  const held = "the page tells of " + task.clips.length + " of the " + task.n_wrong + " clips that some row gets wrong, out of " + task.n_test;
  document.getElementById("listen-count").textContent = (other >= 0 ? positions.length + " clips on which only one of the two is right" : positions.length + " clips shown; " + task.rows[row].name + " gets " + total + " wrong in all") + " (" + held + ").";
  showMore();
}
function showTest(task, row, other) {
  const place = document.getElementById("listen-test");
  place.hidden = other < 0;
  if (other < 0) return;
  const found = task.tests.find((one) => (one[0] === row && one[1] === other) || (one[0] === other && one[1] === row));
  if (!found) { place.textContent = "The page holds no test of these two rows; evar compare --baseline tests every row against one."; return; }
  const sign = found[0] === row ? 1 : -1, values = [found[2], found[3], found[4]].map((value) => sign * value);
  const [low, high] = [Math.min(values[1], values[2]), Math.max(values[1], values[2])];
  const show = (value) => (value >= 0 ? "+" : "\u2212") + Math.abs(value).toFixed(1);
  place.textContent = task.rows[row].name + " minus " + task.rows[other].name + ": " + show(values[0]) + " points, 95 % interval " + show(low) + " to " + show(high) + ", p " + (found[5] < 1e-4 ? "< 0.0001" : "= " + found[5]) + " (" + found[6] + ", paired on the same clips, not corrected for other comparisons): " + (found[5] < 0.05 ? "a difference beyond chance." : "not significant.");
}
function showMore() {
  const { task, positions, shown } = listened, row = menuNumber("row"), other = menuNumber("other");
  const next = positions.slice(shown, shown + PAGE);
  document.getElementById("listen-clips").append(...next.map((at) => makeClip(task, at, row, other)));
  listened.shown += next.length;
  document.getElementById("listen-more").hidden = listened.shown >= positions.length;
}
function describePrediction(task, row, at) {
  const sure = task.confidence[row][at];
  return make("p", {}, [task.rows[row].name + ": ", make("strong", { class: isRight(task, row, at) ? "right" : "wrong" }, className(task, task.predicted[row][at])), sure >= 0 ? " (" + sure + " %)" : ""]);
}
function makePlayer(number, words) {
  const sounds = data("sounds"), one = sounds && number >= 0 ? sounds[number] : null;
  if (!one) return [];
  const image = make("img", { alt: "spectrogram of " + words, loading: "lazy" });
  image.src = one.image.startsWith("data:image/png;base64,") ? one.image : "";
  const player = make("audio", { controls: "", preload: "none", "aria-label": "sound of " + words });
  // Only sounds that the page holds, or relative addresses; the policy of the page says the same.
  if (/^data:audio\/(mpeg|ogg);base64,/.test(one.source) || /^\.{1,2}\//.test(one.source)) player.src = one.source;
  return [image, player];
}
function makeClip(task, at, row, other) {
  const label = task.labels[at].map((number) => className(task, number)).join(", ") || "(no label)";
  const words = [make("p", {}, ["label: ", make("strong", {}, label)]), describePrediction(task, row, at)];
  if (other >= 0) words.push(describePrediction(task, other, at));
  const parts = makePlayer(task.sounds[at], task.clips[at]);
  return make("div", { class: "clip" }, [...parts.slice(0, 1), ...words, make("p", { class: "name" }, task.clips[at]), ...parts.slice(1)]);
}
function chooseListenTask() {
  const task = data("listen").tasks[menuNumber("task")];
  const rows = task.rows.map((row, at) => [at, row.name]);
  fillMenu(document.getElementById("listen-row"), rows);
  fillMenu(document.getElementById("listen-other"), [[-1, "the labels only"], ...rows]);
  const used = Array.from(new Set(task.labels.flat())).sort((a, b) => a - b);
  fillMenu(document.getElementById("listen-class"), [[-1, "all classes"], ...used.map((at) => [at, task.classes[at]])]);
  const taken = Array.from(new Set(task.predicted.flat())).sort((a, b) => a - b);
  fillMenu(document.getElementById("listen-taken"), [[-2, "any wrong class"], ...taken.map((at) => [at, className(task, at)])]);
  document.getElementById("listen-sound").checked = task.sounds.some((number) => number >= 0);
  chooseClips();
}
function listenTo(row, label, taken) {
  const found = data("listen"), at = found ? found.tasks.findIndex((task) => task.rows.some((one) => one.id === row.id)) : -1;
  if (at < 0) return;
  document.getElementById("listen-task").value = at;
  chooseListenTask();
  const task = found.tasks[at];
  document.getElementById("listen-row").value = task.rows.findIndex((one) => one.id === row.id);
  document.getElementById("listen-other").value = -1;
  document.getElementById("listen-sound").checked = false;
  document.getElementById("listen-class").value = label;
  document.getElementById("listen-taken").value = taken;
  if (document.getElementById("listen-class").selectedIndex < 0) document.getElementById("listen-class").value = -1;
  if (document.getElementById("listen-taken").selectedIndex < 0) document.getElementById("listen-taken").value = -2;
  chooseClips();
  document.getElementById("listen").scrollIntoView();
}
starters.push(() => {
  const found = data("listen");
  if (!found) return;
  fillMenu(document.getElementById("listen-task"), found.tasks.map((task, at) => [at, task.name]));
  onChange(document.getElementById("listen-task"), chooseListenTask);
  for (const name of ["row", "other", "class", "taken", "sound"]) onChange(document.getElementById("listen-" + name), chooseClips);
  document.getElementById("listen-more").addEventListener("click", showMore);
  chooseListenTask();
});
