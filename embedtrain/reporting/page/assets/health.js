// How the vectors of each prefix lie in space.
const MEASURES = [
  ["alignment", "Alignment", "mean squared distance of positive pairs, lower is better"],
  ["uniformity", "Uniformity", "lower is more even over the sphere"],
  ["effective_rank", "Effective rank", "dimensions in use, at most dim"],
  ["hubness", "Hubness", "skew of neighbour counts, 0 is even"],
  ["mean_cosine", "Mean cosine", "of different texts; near 1 the vectors have collapsed"],
  ["cka", "Similarity to the last layer", "linear CKA, 1 is the same up to rotation"],
];
let histogramCell = null;

function healthRows(of, step) {
  const names = new Set(tasksOf(of).map((place) => of.tasks[place].name));
  const known = of.health.filter((row) => row.step === step);
  const wanted = known.filter((row) => names.has(row.task));
  return wanted.length || names.size ? wanted : known;
}
function healthMeans(rows, measure) {
  const found = new Map();
  for (const row of rows) {
    if (!isNumber(row[measure])) continue;
    const key = `${row.layer} ${row.dim}`;
    found.set(key, [...(found.get(key) ?? []), row[measure]]);
  }
  return new Map([...found].map(([key, values]) => [key, average(values)]));
}
function drawHealth(host) {
  const of = run();
  if (!of.health.length) return absent(host, "No health of prefixes", missing("health"));
  const steps = ascending(of.health.map((row) => row.step));
  const last = steps[steps.length - 1];
  const rows = healthRows(of, last);
  if (!rows.length) return absent(host, `Nothing was measured on ${whatIsShown(of)}`, "choose all tasks above.");
  const old = steps.length > 1 ? healthRows(of, steps[0]) : [];
  const layers = ascending(rows.map((row) => row.layer));
  const dims = ascending(rows.map((row) => row.dim));
  const top = layers[layers.length - 1];
  const cards = MEASURES.filter(([measure]) => rows.some((row) => isNumber(row[measure]))).map(([measure, title, note]) => {
    const [now, then] = [healthMeans(rows, measure), healthMeans(old, measure)];
    const series = () => {
      const data = layers.map((layer, place) => ({ type: "scatter", mode: "lines+markers", x: dims, y: dims.map((dim) => now.get(`${layer} ${dim}`) ?? null), line: { color: rampColour(place, layers.length), width: 1.7 }, marker: { size: 4.5 }, hoverinfo: "text", hovertext: dims.map((dim) => lines(`L${layer} · D${dim}`, `${title} ${brief(now.get(`${layer} ${dim}`))}`, then.size ? `before ${brief(then.get(`${layer} ${dim}`))}` : "")) }));
      if (then.size) data.push({ type: "scatter", mode: "lines", x: dims, y: dims.map((dim) => then.get(`${top} ${dim}`) ?? null), line: { color: css("soft"), width: 1.4, dash: "dot" }, hoverinfo: "text", hovertext: dims.map((dim) => lines(`before, L${top} · D${dim}`, brief(then.get(`${top} ${dim}`)))) });
      return { data, layout: { margin: { l: 46, r: 8, t: 6, b: 40 }, xaxis: dimAxis(dims), yaxis: {} } };
    };
    return plotCard(title, note, series, () => ({ columns: ["layer", "dim", measure, `${measure} before`], rows: layers.flatMap((layer) => dims.map((dim) => [layer, dim, now.get(`${layer} ${dim}`) ?? null, then.get(`${layer} ${dim}`) ?? null])) }), { height: 230 });
  });
  host.append(el("div", { className: "grid", style: "--least: 260px" }, cards));
  host.append(layersKey(layers, old.length > 0));
  const cells = unique(rows.map((row) => `L${row.layer} · D${row.dim}`));
  if (!cells.includes(histogramCell)) histogramCell = cells[cells.length - 1];
  const place = el("div", { className: "grid" });
  const drawHistogram = () => { forget(place); place.replaceChildren(histogram(rows, cells, drawHistogram)); watchPlots(); };
  drawHistogram();
  const table = tableCard("Health of each prefix", `${step(last)} · ${counted(unique(rows.map((row) => row.task)).length, "task")}`, [{ name: "layer", number: true }, { name: "dim", number: true }, ...MEASURES.map(([measure]) => ({ name: measure.replaceAll("_", " "), number: true, show: brief }))],
    layers.flatMap((layer) => dims.map((dim) => [layer, dim, ...MEASURES.map(([measure]) => healthMeans(rows, measure).get(`${layer} ${dim}`) ?? null)])).filter((row) => row.slice(2).some(isNumber)), { first: 12 });
  host.append(place, el("div", { className: "grid" }, table));
}
const step = (number) => (number === 0 ? "untouched backbone" : `step ${count(number)}`);
function histogram(rows, cells, again) {
  const own = rows.filter((row) => `L${row.layer} · D${row.dim}` === histogramCell);
  const sum = (kind) => own.reduce((total, row) => (row[kind].length ? row[kind].map((value, bin) => value + (total[bin] ?? 0)) : total), []);
  const share = (counts) => { const all = counts.reduce((a, b) => a + b, 0); return counts.map((value) => (all ? (100 * value) / all : 0)); };
  const kinds = [["negative", css("soft"), "other pairs"], ["positive", css("accent"), "positive pairs"]].map(([kind, colour, name]) => ({ counts: sum(kind), colour, name })).filter(({ counts }) => counts.length);
  const bins = Math.max(...kinds.map(({ counts }) => counts.length), 1);
  const middle = (bin) => -1 + (2 * bin + 1) / bins;
  const select = el("select", { "aria-label": "Cut of the histograms", onchange: () => { histogramCell = select.value; again(); } }, cells.map((cell) => el("option", { value: cell, selected: cell === histogramCell }, cell)));
  const used = kinds.flatMap(({ counts }) => counts.map((value, bin) => (value ? middle(bin) : null))).filter(isNumber);
  return plotCard(`Similarity of pairs, ${histogramCell}`, "cosines of positive and of other pairs: the less they overlap, the better", () => ({
    data: kinds.map(({ counts, colour, name }) => ({ type: "bar", name, x: counts.map((_, bin) => middle(bin)), y: share(counts), marker: { color: colour }, opacity: 0.65, hoverinfo: "text", hovertext: counts.map((value, bin) => lines(name, `cosine ${brief(middle(bin) - 1 / bins)} to ${brief(middle(bin) + 1 / bins)}`, `${one(share(counts)[bin])} % (${count(value)} pairs)`)) })),
    layout: { barmode: "overlay", bargap: 0.04, margin: { l: 46, r: 10, t: 8, b: 40 }, xaxis: { title: "cosine", range: used.length ? [Math.min(...used) - 0.08, Math.min(1.02, Math.max(...used) + 0.08)] : [-1, 1] }, yaxis: { title: "% of pairs" } },
  }), () => ({ columns: ["cosine", ...kinds.map(({ name }) => name)], rows: Array.from({ length: bins }, (_, bin) => [middle(bin), ...kinds.map(({ counts }) => counts[bin])]) }), { height: 270, wide: true, below: el("div", { className: "sift" }, keyOf(kinds.map(({ name, colour }) => [name, colour])), el("label", {}, "cut ", select)) });
}
