// The first thing that is read: which cut of which run to ship, what it costs, and what looks wrong.
const msOf = (of, cell, kind) => of.cost.find((row) => row.layer === cell[0])?.[kind] ?? null;

// The cut to ship, as the verdict of a run chooses it, over all runs: the cheapest, by layers x bytes, that is at most
// `limit` % below the best whole model; or the best of at most so many bytes, for a limit "256 B". {of, cell, score, whole}.
const NOT_YET = "the trained model is not measured yet: a run measures it at its end.";
const price = (cell) => cell[0] * bytesOf(cell);
const budgetOf = (limit) => (typeof limit === "string" ? Number(limit.split(" ")[0]) : null);
function recommended(runs, names, limit) {
  const candidates = runs.flatMap((of) => {
    const values = after(of, names);
    return of.cells.map((cell) => ({ of, cell, score: values.get(cellKey(cell)) })).filter(({ score }) => isNumber(score));
  });
  const wholes = runs.map((of) => ({ of, score: fullCell(of) ? after(of, names).get(cellKey(fullCell(of))) : undefined })).filter(({ score }) => isNumber(score));
  if (!wholes.length) return null;
  const whole = wholes.reduce((best, each) => (each.score > best.score ? each : best));
  const budget = budgetOf(limit);
  const enough = candidates.filter(({ cell, score }) => (budget ? bytesOf(cell) <= budget : score >= whole.score * (1 - limit / 100) - 1e-9));
  if (!enough.length) return null;
  const first = budget ? (a, b) => b.score - a.score : (a, b) => price(a.cell) - price(b.cell);
  const order = (a, b) => first(a, b) || a.cell[0] - b.cell[0] || bytesOf(a.cell) - bytesOf(b.cell) || b.score - a.score;
  return { ...enough.sort(order)[0], whole };
}
// What may be asked of a cut: how much it loses, or how large its vectors are.
function limitSelect() {
  const sizes = ascending(DATA.runs.flatMap((of) => of.cells.map(bytesOf)));
  const option = (value, text) => el("option", { value: String(value), selected: value === chosen.tolerance }, text);
  const select = el("select", { id: "tolerance", "aria-label": "What is asked of the cut", onchange: () => {
    chosen.tolerance = select.value.includes("B") ? select.value : Number(select.value);
    drawPage();
  } },
    el("optgroup", { label: "loss of quality" }, [0, 0.5, 1, 2, 3, 5, 10, 20].map((value) => option(value, `${value} %`))),
    el("optgroup", { label: "bytes a vector" }, sizes.map((size) => option(`${size} B`, bytes(size)))));
  return select;
}
const fact = (name, value, more) => el("div", {}, el("dt", {}, name), el("dd", {}, value, more ? el("small", {}, ` ${more}`) : null));

function heroCard() {
  const several = DATA.runs.length > 1;
  const names = several ? namesForAll() : tasksOf(run()).map((place) => run().tasks[place].name);
  const scored = DATA.runs.filter((of) => of.after !== null);
  const best = scored.length && names.length ? recommended(scored, names, chosen.tolerance) : null;
  const card = el("div", { className: "card hero" });
  if (!best) {
    const why = several && scored.length ? "the runs have no task in common that their largest cut was measured on." : run().cells.length ? NOT_YET : missing("scores");
    card.append(el("p", { className: "say" }, several ? "No cut to recommend yet" : run().state === "finished" ? "Nothing was measured" : `${run().name}: ${run().state}`), el("p", { className: "why" }, `${why.charAt(0).toUpperCase()}${why.slice(1)}`));
    return card;
  }
  const { of, cell, score, whole } = best;
  const share = (100 * score) / whole.score;
  const over = names.length === 1 ? names[0] : `mean of ${names.length} tasks`;
  const full = fullCell(whole.of);
  const fewer = bytesOf(full) / bytesOf(cell);
  const select = limitSelect();
  const budget = budgetOf(chosen.tolerance);
  const isWhole = of === whole.of && cellKey(cell) === cellKey(full);
  const named = cellName(cell).replaceAll(" ", "\u00a0"); // in one piece
  card.append(
    el("p", { className: "say" }, isWhole ? `Ship the whole model${several ? ` of ${of.name}` : ""}, ${named}.` : `Ship ${named}${several ? ` of ${of.name}` : ""}: ${share > 100.05 ? "better than the whole model" : `${one(share)} % of full quality`}${fewer > 1.01 ? ` in ${fewer >= 9.95 ? Math.round(fewer) : brief(Number(fewer.toFixed(1)))} times fewer bytes` : ""}.`),
    el("p", { className: "why" }, budget ? "The best cut of at most " : isWhole ? "No cheaper cut was measured that loses at most " : "The cheapest cut, by layers × bytes, that loses at most ", select,
      ` ${budget ? "a vector; held against" : "of"} ${several ? "the best whole model" : "the whole model"} (${cellName(full)}${several ? ` of ${clip(whole.of.name, 40)}` : ""}, ${one(whole.score)}), by ${over}.${isTrained(of, cell) ? "" : " Training did not aim at this cut."}`),
    el("dl", { className: "facts" },
      fact("score", one(score), `of ${one(whole.score)}`), fact("a vector", bytes(bytesOf(cell)), `of ${bytes(bytesOf(full))}`),
      fact("layers", String(cell[0]), `of ${Math.max(...of.cells.map((each) => each[0]))} measured`),
      fact("one query", msOf(of, cell, "query") === null ? "–" : `${ms(msOf(of, cell, "query"))} ms`, msOf(of, cell, "query") === null ? "not measured" : msOf(whole.of, full, "query") === null ? "" : `of ${ms(msOf(whole.of, full, "query"))}`),
      fact("a text in a batch", msOf(of, cell, "batch") === null ? "–" : `${ms(msOf(of, cell, "batch"))} ms`, msOf(of, cell, "batch") === null ? "not measured" : msOf(whole.of, full, "batch") === null ? "" : `of ${ms(msOf(whole.of, full, "batch"))}`)));
  return card;
}

function outcome(of) {
  const [old, now] = [before(of), after(of)];
  const both = of.cells.filter((cell) => isTrained(of, cell) && cell[2] === "float32" && old.has(cellKey(cell)) && now.has(cellKey(cell)));
  return both.length ? { number: both.length, old: average(both.map((cell) => old.get(cellKey(cell)))), now: average(both.map((cell) => now.get(cellKey(cell)))) } : null;
}
function judged(of) {
  const changes = of.verdict?.changes ?? [];
  const number = (what) => changes.filter(({ verdict }) => verdict === what).length;
  return changes.length ? [["better", number("better")], ["worse", number("worse")], ["not distinguishable", number("not distinguishable")], ["not tested", number(null)]].filter(([, value]) => value) : [];
}
function runCard(of) {
  const mean = outcome(of);
  const full = fullCell(of);
  const [old, now] = full ? [before(of).get(cellKey(full)), after(of).get(cellKey(full))] : [];
  const counts = judged(of);
  const found = (of.verdict?.findings ?? []).map(({ name }) => name);
  // what it says of findings stands below, with what to try
  const lines = (of.verdict?.lines ?? []).filter((line) => !line.startsWith(" ") && !found.some((name) => line.startsWith(name) || line.startsWith(name.replaceAll("_", " "))));
  const moved = of.verdict?.moved;
  return el("div", { className: "card wide" },
    el("header", {}, el("div", {}, el("h3", {}, `What training did${DATA.runs.length > 1 ? `: ${of.name}` : ""}`), el("p", {}, of.state))),
    el("dl", { className: "facts", style: "margin-top:8px" },
      isNumber(now) ? fact(`whole model, ${whatIsShown(of)}`, isNumber(old) ? `${one(old)} → ${one(now)}` : one(now), isNumber(old) ? signed(now - old) : "") : null,
      mean ? fact(`mean of ${mean.number} trained cuts`, `${one(mean.old)} → ${one(mean.now)}`, signed(mean.now - mean.old)) : null,
      counts.length ? fact("tasks against before", counts.map(([name, value]) => `${value} ${name}`).join(", ")) : null,
      isNumber(moved) ? fact("weights that changed", `${one(100 * moved)} %`) : null),
    lines.length ? el("ul", { className: "lines" }, lines.map((line) => el("li", {}, line))) : null,
    findings(of), of.problems.length ? el("ul", { className: "findings" }, of.problems.map((text) => el("li", {}, el("b", {}, "Could not be read: "), text))) : null,
    of.verdict ? null : absence("No verdict of the run itself", missing("verdict", of)));
}
function findings(of) {
  const found = of.verdict?.findings ?? [];
  if (!found.length) return null;
  return el("ul", { className: "findings" }, found.map(({ name, text, cure }) => el("li", {}, el("b", {}, `${name.replaceAll("_", " ")}: `), text, cure ? [el("br"), "Try ", el("code", {}, cure)] : null)));
}
function runsTable() {
  const names = namesForAll();
  const rows = DATA.runs.map((of) => {
    const full = fullCell(of);
    const [old, now] = full ? [before(of, names).get(cellKey(full)), after(of, names).get(cellKey(full))] : [];
    const cut = of.after === null || !names.length ? null : recommended([of], names, chosen.tolerance);
    return [of.name, of.state, old ?? null, now ?? null, isNumber(old) && isNumber(now) ? now - old : null, cut ? cellName(cut.cell) : null, cut?.score ?? null, cut ? bytesOf(cut.cell) : null, cut ? msOf(of, cut.cell, "query") : null];
  });
  const empty = (show) => (value) => (value === null ? "–" : show(value));
  return tableCard("Runs", names.length ? `whole model and recommended cut, over ${names.length} task${names.length === 1 ? "" : "s"} that all scored runs have, × 100` : "",
    [{ name: "run" }, { name: "state" }, { name: "before", number: true, show: empty(one) }, { name: "after", number: true, show: empty(one) }, { name: "change", number: true, show: empty(signed), mark: (value) => (value > 0.05 ? "better" : value < -0.05 ? "worse" : "") },
      { name: "recommended", tight: true, show: empty(plain) }, { name: "its score", number: true, show: empty(one) }, { name: "bytes", number: true, show: empty(count) }, { name: "ms a query", number: true, show: empty(ms) }],
    rows, { sort: 3, down: true, here: (row) => row[0] === run().name });
}
function movedCard(of) {
  const blocks = of.weights?.blocks ?? [];
  if (!blocks.length) return null;
  return plotCard("How far the weights moved", "relative change by block, |after − before| / |before|", () => ({
    data: [{ type: "bar", x: blocks.map(({ block }) => pt(block)), y: blocks.map(({ moved }) => moved), marker: { color: css("accent") }, hoverinfo: "text", hovertext: blocks.map(({ block, moved, changed, parameters }) => lines(`block ${block}`, `moved ${brief(100 * moved)} %`, `${brief(100 * changed)} % of ${count(parameters)} numbers changed`)) }],
    layout: { xaxis: { title: "block", type: "category" }, yaxis: { title: "relative change", rangemode: "tozero" } },
  }), () => ({ columns: ["block", "parameters", "moved", "largest", "changed"], rows: blocks.map(({ block, parameters, moved, largest, changed }) => [block, parameters, moved, largest, changed]) }), { height: 240 });
}
function cutsCard(of) {
  const cuts = of.weights?.cuts ?? [];
  if (!cuts.length) return null;
  return tableCard("How far the vectors moved", `cosine of a text's vector before and after, over ${count(of.weights.texts)} training texts`, [{ name: "cut" }, { name: "mean cosine", number: true, show: brief }, { name: "least cosine", number: true, show: brief }], cuts.map(({ layer, dim, cosine, least }) => [`L${layer} · D${dim}`, cosine, least]), { narrow: true });
}
function drawVerdict(host) {
  host.append(heroCard());
  const of = run();
  host.append(el("div", { className: "grid", style: "--least: 360px" }, DATA.runs.length > 1 ? runsTable() : null, runCard(of), movedCard(of), cutsCard(of)));
  if (!of.weights) absent(host, "Not known how far the weights moved", missing("weights"));
}
