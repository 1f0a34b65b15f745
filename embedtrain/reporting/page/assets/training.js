// How it trained: curves of metrics.jsonl, and negatives that rules removed.
const curveOf = (of, key) => {
  const found = of.curves.series[key];
  return found ? { x: of.curves.steps[found[0]], y: found[1] } : null;
};
const keysLike = (of, pattern) => Object.keys(of.curves.series).map((key) => [key, key.match(pattern)]).filter(([, match]) => match);
const subOrder = (a, b) => a.layer - b.layer || a.dim - b.dim;
function curveCard(title, note, series, axis, options = {}) {
  // series: [{name, colour, x, y, dash}]
  return plotCard(title, note, () => ({
    data: series.map(({ name, colour, x, y, dash, width }) => ({ type: "scatter", mode: x.length < 12 ? "lines+markers" : "lines", name: pt(clip(name)), x, y, line: { color: colour, width: width ?? 1.8, dash: dash ?? "solid" }, marker: { size: 5 }, hoverinfo: "text", hovertext: x.map((step, place) => lines(name, `step ${count(step)}: ${brief(y[place])}`)) })),
    layout: { margin: { l: 54, r: 10, t: 8, b: 40 }, xaxis: { title: "step" }, yaxis: { title: axis, exponentformat: "e", ...options.yaxis } },
  }), () => ({ columns: ["series", "step", axis], rows: series.flatMap(({ name, x, y }) => x.map((step, place) => [name, step, y[place]])) }), { height: 250, below: series.length > 1 ? keyOf(series.map(({ name, colour }) => [name, colour])) : null });
}
function subSeries(of, pattern) {
  const found = keysLike(of, pattern).map(([key, match]) => ({ key, layer: Number(match.groups.layer), dim: Number(match.groups.dim) })).sort(subOrder);
  return found.map(({ key, layer, dim }, place) => ({ name: `L${layer} · D${dim}`, colour: rampColour(place, found.length), ...curveOf(of, key) }));
}
// One line a run of a metric that every run has one of.
const runSeries = (key, scale = 1) => DATA.runs.map((of, place) => ({ of, place, curve: curveOf(of, key) })).filter(({ curve }) => curve)
  .map(({ of, place, curve }) => ({ name: of.name, colour: runColour(place), width: place === chosen.run ? 2.4 : 1.4, x: curve.x, y: curve.y.map((value) => (isNumber(value) ? value * scale : null)) }));
const byName = (of, pattern) => keysLike(of, pattern).map(([key, match], place) => ({ name: match.groups.name, colour: runColour(place), ...curveOf(of, key) }));

function drawCurves(host) {
  const of = run();
  const cards = [];
  const add = (series, ...rest) => { if (series.length) cards.push(curveCard(rest[0], rest[1], series, ...rest.slice(2))); };
  add(subSeries(of, /^train\/loss_L(?<layer>\d+)_D(?<dim>\d+)$/), "Loss by sub-model", "before weights", "loss");
  add(byName(of, /^train\/(?<name>.+)\/loss$/), "Loss by data set", "", "loss");
  add(byName(of, /^(?<name>[^/]+): train\/loss$/), "Loss of earlier stages", "each counts its own steps", "loss");
  const validated = subSeries(of, /^val\/.+_L(?<layer>\d+)_D(?<dim>\d+)$/).map((each) => ({ ...each, y: each.y.map((value) => (isNumber(value) ? 100 * value : null)) }));
  const metric = keysLike(of, /^val\/(?<name>.+)_L\d+_D\d+$/)[0]?.[1].groups.name;
  add(validated, "Validation by sub-model", metric ? `${metric} × 100` : "", "score × 100");
  add(byName(of, /^train\/(?<name>.+)\/accuracy$/), "Accuracy in the batch by data set", "the positive ranks first among all candidates", "share");
  const together = (key, ...rest) => add(runSeries(key, rest[3] ?? 1), ...rest.slice(0, 3));
  if (DATA.runs.length > 1) { together("train/loss", "Loss of all runs", "sum over sub-models", "loss"); together("val/mean", "Validation of all runs", "mean over sub-models × 100", "score × 100", 100); }
  together("eval/mean", "Tasks while training", "mean over tasks and sub-models × 100", "score × 100", 100);
  for (const key of ["train/lr", "lr"]) together(key, "Learning rate", "", "learning rate");
  together("train/pairs_per_second", "Throughput", "", "pairs a second");
  for (const key of ["train/tokens_per_second"]) together(key, "Throughput in tokens", "", "tokens a second");
  for (const key of ["train/seconds_per_step", "train/step_seconds"]) together(key, "Seconds a step", "", "seconds");
  together("train/grad_norm", "Gradient norm", "before clipping", "norm");
  if (!cards.length) return absent(host, "No curves", missing("curves"));
  host.append(el("div", { className: "grid", style: "--least: 330px" }, cards));
  const lacking = [["learning rate", /^(train\/)?lr/], ["throughput", /_per_second$/], ["gradient norm", /grad_norm$/]].filter(([, pattern]) => !keysLike(of, pattern).length).map(([name]) => name);
  if (lacking.length) absent(host, `No ${lacking.join(", no ")}`, "in metrics.jsonl of this run.");
  if (of.curves.note) absent(host, of.curves.note, "");
}

function drawNegatives(host) {
  const of = run();
  const cards = [];
  const rules = new Map();
  for (const [key, match] of keysLike(of, /^train\/(?:(?<set>.+)\/)?removed_(?<rule>.+)$/)) {
    const set = match.groups.set ?? "all data";
    if (!rules.has(set)) rules.set(set, []);
    rules.get(set).push({ rule: match.groups.rule, ...curveOf(of, key) });
  }
  if (!rules.size) return absent(host, "No negatives were counted", missing("negatives"));
  for (const [set, found] of rules) {
    cards.push(curveCard(set, "share of candidates that a rule took out of the negatives, %", found.map(({ rule, x, y }, place) => ({ name: rule, colour: runColour(place), x, y: y.map((value) => (isNumber(value) ? 100 * value : null)) })), "% removed", { yaxis: { rangemode: "tozero" } }));
  }
  host.append(el("div", { className: "grid", style: "--least: 330px" }, cards));
  const rows = [...rules].flatMap(([set, found]) => found.map(({ rule, y }) => [set, rule, 100 * average(y.filter(isNumber)), 100 * (y.filter(isNumber).at(-1) ?? NaN)]));
  host.append(el("div", { className: "grid" }, tableCard("Negatives removed", "mean over the logged steps, and the last of them", [{ name: "data" }, { name: "rule", code: true }, { name: "mean %", number: true, show: (value) => (isNumber(value) ? value.toFixed(2) : "–") }, { name: "last %", number: true, show: (value) => (isNumber(value) ? value.toFixed(2) : "–") }], rows)));
}
