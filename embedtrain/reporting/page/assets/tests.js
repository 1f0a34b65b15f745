// Which differences are more than chance.
const JUDGED = { better: "better", worse: "worse", "not distinguishable": "dim" };
function testRows(of) {
  const own = (of.verdict?.changes ?? []).map((row) => ({ what: "before → after", task: row.task, metric: row.metric, cell: cellName([row.layer, row.dim, row.dtype]), first: 100 * row.before, second: 100 * row.after, low: row.low, high: row.high, p: row.p, verdict: row.verdict }));
  const others = of.tests.map((row) => ({ ...row, first: 100 * row.first, second: 100 * row.second }));
  const kept = (row) => (!chosen.task || row.task === chosen.task) && (!chosen.type || of.tasks.some((task) => task.name === row.task && task.type === chosen.type));
  return [...own, ...others].filter(kept).map((row) => ({ ...row, difference: row.second - row.first, low: isNumber(row.low) ? 100 * row.low : null, high: isNumber(row.high) ? 100 * row.high : null }));
}
function drawTests(host) {
  const of = run();
  const rows = testRows(of);
  if (!rows.length) return absent(host, "No tests of significance", missing("tests"));
  const groups = unique(rows.map((row) => row.what));
  const plots = groups.slice(0, 4).filter((what) => rows.some((row) => row.what === what && isNumber(row.low))).map((what) => {
    const shown = rows.filter((row) => row.what === what && isNumber(row.low)).sort((a, b) => a.difference - b.difference).slice(-40);
    const colour = (row) => (row.verdict === "better" ? css("good") : row.verdict === "worse" ? css("bad") : css("soft"));
    return plotCard(what, `difference × 100 with its interval; grey is not distinguishable`, () => ({
      data: [{ type: "scatter", mode: "markers", x: shown.map((row) => row.difference), y: shown.map((_, place) => place), marker: { size: 8, color: shown.map(colour) }, error_x: { type: "data", symmetric: false, array: shown.map((row) => row.high - row.difference), arrayminus: shown.map((row) => row.difference - row.low), color: css("soft"), thickness: 1.3, width: 3 }, hoverinfo: "text", hovertext: shown.map((row) => lines(row.task, row.cell, `${one(row.first)} → ${one(row.second)}, ${signed(row.difference)}`, `${signed(row.low)} … ${signed(row.high)}`, row.verdict ?? "not tested")) }],
      layout: { margin: { l: 10, r: 14, t: 8, b: 40 }, xaxis: { title: "difference × 100", rangemode: "tozero", zeroline: true, zerolinecolor: css("soft"), zerolinewidth: 1 }, yaxis: { tickvals: shown.map((_, place) => place), ticktext: shown.map((row) => pt(clip(row.task, window.innerWidth < 560 ? 16 : 30))), showgrid: false, range: [-0.6, shown.length - 0.4] } },
    }), () => ({ columns: ["task", "cut", "difference x 100", "low", "high", "verdict"], rows: shown.map((row) => [row.task, row.cell, row.difference, row.low, row.high, row.verdict]) }), { height: 84 + 24 * Math.max(2, shown.length) });
  });
  host.append(el("div", { className: "grid", style: "--least: 380px" }, plots));
  const two = (value) => (isNumber(value) ? value.toPrecision(2) : "–");
  host.append(el("div", { className: "grid" }, tableCard("Tests", "paired over items, p corrected over all tests of a comparison; intervals of 95 %", [
    { name: "comparison" }, { name: "task" }, { name: "cut", tight: true }, { name: "first", number: true, show: one }, { name: "second", number: true, show: one }, { name: "difference", number: true, show: signed },
    { name: "low", number: true, show: signed }, { name: "high", number: true, show: signed }, { name: "p", number: true, show: two }, { name: "verdict", tight: true, mark: (value) => JUDGED[value] ?? "dim" },
  ], rows.map((row) => [row.what, row.task, row.cell, row.first, row.second, row.difference, row.low, row.high, row.p, row.verdict ?? "not tested"]))));
}
