// Which differences are more than chance.
const JUDGED = { better: "better", worse: "worse", "not distinguishable": "dim" };
const TURNED = { better: "worse", worse: "better" };
const two = (value) => (isNumber(value) ? (value < 0.0001 ? "<0.0001" : value.toPrecision(2)) : "–");
const hundred = (value) => (isNumber(value) ? 100 * value : null);
const isShown = (of, name) => (!chosen.task || name === chosen.task) && (!chosen.type || of.tasks.some((task) => task.name === name && task.type === chosen.type));
const inHundreds = ({ first, second, low, high, ...rest }) => ({ ...rest, first: 100 * first, second: 100 * second, difference: 100 * (second - first), low: hundred(low), high: hundred(high) });

function beforeRows(of) {
  const own = (of.verdict?.changes ?? []).map((row) => ({ ...row, cell: cellName([row.layer, row.dim, row.dtype]), first: row.before, second: row.after }));
  return [...own, ...of.tests].filter((row) => isShown(of, row.task)).map((row) => inHundreds({ ...row, what: "before → after" }));
}
// A comparison seen from one of its runs: the difference is that run − the other.
function seenFrom(place, pair) {
  const turned = pair.first === place;
  const turn = (row) => (turned ? { ...row, first: row.second, second: row.first, low: isNumber(row.high) ? -row.high : null, high: isNumber(row.low) ? -row.low : null, verdict: TURNED[row.verdict] ?? row.verdict } : row);
  const other = turned ? pair.second : pair.first;
  const named = { other, cell: pair.cell, what: `${DATA.runs[other].name} → ${DATA.runs[place].name}` };
  const tasks = pair.rows.map(([task, first, second, low, high, p, verdict]) => inHundreds({ ...turn({ first, second, low, high, verdict }), ...named, task, p }));
  const mean = pair.mean && inHundreds({ ...turn(pair.mean), ...named, task: pair.mean.tasks === 1 ? pair.rows.find((row) => row[6])[0] : `the mean of ${pair.mean.tasks} tasks`, p: pair.mean.corrected });
  return { ...named, tasks, mean, reason: pair.reason };
}
// One row against each other run: the chosen task, or the mean over all tasks.
function overallRows(place) {
  const seen = DATA.pairs.filter((pair) => pair.first === place || pair.second === place).map((pair) => seenFrom(place, pair));
  return seen.map(({ tasks, mean }) => (chosen.task ? tasks.find((row) => row.task === chosen.task) : mean)).filter(Boolean);
}
function said(of, rows) {
  const named = (verdict) => rows.filter((row) => row.verdict === verdict).map((row) => DATA.runs[row.other].name);
  const some = (names) => (names.length > 6 ? `${names.length} runs` : names.join(", "));
  const parts = [["better", "is better than"], ["worse", "is worse than"], ["not distinguishable", "is not distinguishable from"]].map(([verdict, words]) => [words, named(verdict)]).filter(([, names]) => names.length);
  if (!parts.length) return null;
  const over = chosen.task || (rows.every((row) => row.task === rows[0].task) ? rows[0].task : "the mean over tasks");
  return el("p", { className: "say" }, `${of.name} `, parts.map(([words, names], place) => `${place ? "; " : ""}${words} ${some(names)}`).join(""), ` on ${over}.`);
}

function intervals(title, rows, name) {
  const shown = rows.filter((row) => isNumber(row.low)).sort((a, b) => a.difference - b.difference).slice(-40);
  if (!shown.length) return null;
  const colour = (row) => (row.verdict === "better" ? css("good") : row.verdict === "worse" ? css("bad") : css("soft"));
  return plotCard(title, "difference × 100 with its interval; grey is not distinguishable", () => ({
    data: [{ type: "scatter", mode: "markers", x: shown.map((row) => row.difference), y: shown.map((_, place) => place), marker: { size: 8, color: shown.map(colour) }, error_x: { type: "data", symmetric: false, array: shown.map((row) => row.high - row.difference), arrayminus: shown.map((row) => row.difference - row.low), color: css("soft"), thickness: 1.3, width: 3 }, hoverinfo: "text", hovertext: shown.map((row) => lines(name(row), row.task === name(row) ? "" : row.task, row.cell, `${one(row.first)} → ${one(row.second)}, ${signed(row.difference)}`, `${signed(row.low)} … ${signed(row.high)}`, row.verdict ?? "not tested")) }],
    layout: { margin: { l: 10, r: 14, t: 8, b: 40 }, xaxis: { title: "difference × 100", rangemode: "tozero", zeroline: true, zerolinecolor: css("soft"), zerolinewidth: 1 }, yaxis: { tickvals: shown.map((_, place) => place), ticktext: shown.map((row) => pt(clip(name(row), window.innerWidth < 560 ? 16 : 30))), showgrid: false, range: [-0.6, shown.length - 0.4] } },
  }), () => ({ columns: ["comparison", "task", "cut", "difference x 100", "low", "high", "verdict"], rows: shown.map((row) => [row.what, row.task, row.cell, row.difference, row.low, row.high, row.verdict]) }), { height: 84 + 24 * Math.max(2, shown.length) });
}
// Runs beside each other: the row's run − the column's; grey is not distinguishable.
function matrix() {
  const places = DATA.runs.map((_, place) => place).filter((place) => DATA.pairs.some((pair) => pair.first === place || pair.second === place));
  const rows = new Map(places.map((place) => [place, new Map(overallRows(place).map((row) => [row.other, row]))]));
  const every = [...rows.values()].flatMap((row) => [...row.values()]);
  if (every.length < 2) return null;
  const [low, high] = around(every.map((row) => row.difference));
  const named = places.map((place) => pt(clip(DATA.runs[place].name, places.length > 8 ? 10 : 16)));
  const at = (y, x) => rows.get(places[y]).get(places[x]);
  const cell = (draw) => places.map((_, y) => places.map((_, x) => draw(at(y, x), y, x)));
  const known = cell((row) => (row ? (row.verdict === "not distinguishable" || !row.verdict ? 0 : row.difference) : null));
  const ink = (value) => (value === null ? css("soft") : inkOn(diverging(), (value - low) / (high - low)));
  return plotCard("Every pair of runs", `the run of the row − the run of the column, × 100, on ${chosen.task || "the mean over the tasks that both have"}; “=” is not distinguishable`, () => ({
    data: [{ type: "heatmap", z: known, x: places.map((_, x) => x), y: places.map((_, y) => y), zmin: low, zmax: high, colorscale: diverging(), showscale: false, xgap: 1, ygap: 1, hoverinfo: "text", hovertext: cell((row, y, x) => (row ? lines(`${DATA.runs[places[y]].name} − ${DATA.runs[places[x]].name}`, `${row.task}, ${row.cell}`, `${signed(row.difference)}, ${signed(row.low)} … ${signed(row.high)}`, `p ${two(row.p)}: ${row.verdict ?? "not tested"}`) : "")) }],
    layout: {
      annotations: cell((row, y, x) => ({ x, y, showarrow: false, text: row ? window.innerWidth < 560 && places.length > 5 ? "" : `${row.verdict === "not distinguishable" ? "= " : ""}${signed(row.difference)}` : y === x ? "" : "·", font: { size: places.length > 8 ? 9.5 : 11.5, color: ink(known[y][x]) } })).flat(),
      margin: { l: 60, r: 8, t: 6, b: 60 }, xaxis: { tickvals: places.map((_, x) => x), ticktext: named, showgrid: false, fixedrange: true }, yaxis: { tickvals: places.map((_, y) => y), ticktext: named, showgrid: false, fixedrange: true, autorange: "reversed" },
    },
  }), () => ({ columns: ["run", ...places.map((place) => DATA.runs[place].name)], rows: places.map((place, y) => [DATA.runs[place].name, ...places.map((_, x) => at(y, x)?.difference ?? null)]) }), { height: 120 + 30 * places.length, wide: places.length > 6 });
}

const NUMBERS = [{ name: "first", number: true, show: one }, { name: "second", number: true, show: one }, { name: "difference", number: true, show: signed }, { name: "low", number: true, show: signed }, { name: "high", number: true, show: signed }, { name: "p", number: true, show: two }, { name: "verdict", tight: true, mark: (value) => JUDGED[value] ?? "dim" }];
const asRow = (row) => [row.what, row.task, row.cell, row.first, row.second, row.difference, row.low, row.high, row.p, row.verdict ?? "not tested"];
const testsTable = (title, note, rows) => tableCard(title, note, [{ name: "comparison" }, { name: "task" }, { name: "cut", tight: true }, ...NUMBERS], rows.map(asRow));

function drawTests(host) {
  const of = run();
  const own = beforeRows(of);
  const against = overallRows(chosen.run);
  const pairs = DATA.pairs.map((pair) => seenFrom(pair.second, pair));
  if (!own.length && !pairs.some(({ tasks }) => tasks.length)) return absent(host, "No tests of significance", missing("tests"));
  const sentence = said(of, against);
  if (sentence) host.append(el("div", { className: "card", style: "margin-top:14px" }, sentence));
  const plots = [intervals("before → after", own, (row) => row.task), intervals(`${of.name} against each other run`, against, (row) => DATA.runs[row.other].name), matrix()];
  host.append(el("div", { className: "grid", style: "--least: 380px" }, plots));
  const grid = el("div", { className: "grid" });
  if (own.length) grid.append(testsTable("Before and after", "paired over items; p corrected by Holm over the tasks; intervals of 95 %", own));
  const means = pairs.map(({ mean }) => mean).filter(Boolean);
  if (means.length && !chosen.task) grid.append(testsTable("Pairs of runs", "the mean over the tasks that both have; p corrected by Holm over the pairs; intervals of 95 %", means));
  const tasks = pairs.flatMap((pair) => pair.tasks.filter((row) => isShown(of, row.task)));
  if (tasks.length) grid.append(testsTable("Pairs of runs by task", "paired over items; p corrected by Holm over the tasks of a pair; intervals of 95 %", tasks));
  host.append(grid);
  if (DATA.pairs_note) absent(host, DATA.pairs_note, "");
  const why = unique(pairs.map(({ reason }) => reason).filter(Boolean));
  if (why.length) absent(host, "Some pairs could not be tested", `${why.slice(0, 3).join(" ")}${why.length > 3 ? ` And ${why.length - 3} more.` : ""}`);
  if (!own.length) absent(host, "No test of before and after", missing("tests"));
}
