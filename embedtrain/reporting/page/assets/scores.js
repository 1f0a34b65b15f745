// What was measured: heat maps, cost, what a prefix keeps, and types of tasks.
function heatData(of, values, from, scale, limits, text) {
  const cells = of.cells.filter((cell) => cell[2] === chosen.dtype);
  const layers = ascending(cells.map((cell) => cell[0]));
  const dims = ascending(cells.map((cell) => cell[1]));
  const at = (layer, dim) => values.get(cellKey([layer, dim, chosen.dtype]));
  const z = layers.map((layer) => dims.map((dim) => at(layer, dim) ?? null));
  const [low, high] = limits;
  const share = (value) => (high > low ? (value - low) / (high - low) : 0.5);
  const small = dims.length > 8;
  const annotations = layers.flatMap((layer, y) => dims.map((dim, x) => {
    const value = at(layer, dim);
    return { x, y, text: value === undefined ? "·" : text(value), showarrow: false, font: { size: small ? 9.5 : dims.length > 5 ? 10.5 : 11.5, color: value === undefined ? css("soft") : inkOn(scale, share(value)) } };
  }));
  const shapes = of.trained.filter(([layer, dim]) => layers.includes(layer) && dims.includes(dim)).map(([layer, dim]) => ({
    type: "rect", x0: dims.indexOf(dim) - 0.46, x1: dims.indexOf(dim) + 0.46, y0: layers.indexOf(layer) - 0.44, y1: layers.indexOf(layer) + 0.44, line: { color: "#e0455e", width: 2 } }));
  const hovertext = layers.map((layer) => dims.map((dim) => from([layer, dim, chosen.dtype], at(layer, dim))));
  return {
    data: [{ type: "heatmap", z, x: dims.map((_, x) => x), y: layers.map((_, y) => y), zmin: low, zmax: high, colorscale: scale, showscale: false, xgap: 1, ygap: 1, hovertext, hoverinfo: "text" }],
    layout: {
      annotations, shapes, margin: { l: 44, r: 8, t: 6, b: 40 },
      xaxis: { title: "dim", tickvals: dims.map((_, x) => x), ticktext: dims.map(String), showgrid: false, fixedrange: true },
      yaxis: { title: "layer", tickvals: layers.map((_, y) => y), ticktext: layers.map(String), showgrid: false, fixedrange: true },
    },
  };
}
const heatHeight = (of) => 66 + Math.max(3, unique(of.cells.map((cell) => cell[0])).length) * (unique(of.cells.map((cell) => cell[0])).length > 14 ? 24 : 32);
function heatTable(of, values) {
  const rows = of.cells.filter((cell) => cell[2] === chosen.dtype).map((cell) => [...cell, values.get(cellKey(cell)) ?? null]);
  return { columns: ["layer", "dim", "dtype", whatIsShown(of)], rows };
}
function heatCard(title, note, of, values, scale, limits, text, from) {
  return plotCard(title, note, () => heatData(of, values, from, scale, limits, text), () => heatTable(of, values), { height: heatHeight(of) });
}
const minus = (these, those) => new Map([...these].filter(([key]) => those.has(key)).map(([key, value]) => [key, value - those.get(key)]));
const around = (values) => { const far = Math.max(0.1, ...values.map(Math.abs)); return [-far, far]; };

function drawHeatMaps(host) {
  const of = run();
  const [old, now] = [before(of), after(of)];
  const inDtype = (values) => [...values].filter(([key]) => key.endsWith(` ${chosen.dtype}`));
  const numbers = [...inDtype(old), ...inDtype(now)].map(([, value]) => value);
  if (!numbers.length) return absent(host, `No cell of dtype ${chosen.dtype} has scores on all tasks of ${whatIsShown(of)}`, "choose one task, or another dtype, above.");
  const limits = [Math.min(...numbers), Math.max(...numbers)];
  const say = (cell, value) => lines(cellName(cell), value === undefined ? "not measured on all of these tasks" : `before ${one(old.get(cellKey(cell)))} → after ${one(now.get(cellKey(cell)))}`, `${bytes(bytesOf(cell))} a vector${isTrained(of, cell) ? " · trained" : ""}`);
  const cards = [];
  const whole = (values) => inDtype(values).length > 0;
  if (whole(old)) cards.push(heatCard("Before", of.before === 0 ? "the untouched backbone" : `step ${of.before}`, of, old, CIVIDIS, limits, one, say));
  if (whole(now)) cards.push(heatCard(whole(old) ? "After" : "Measured", whole(old) ? `step ${count(of.after)}` : of.steps.length > 1 ? `step ${count(of.after)}` : "", of, now, CIVIDIS, limits, one, say));
  const change = minus(now, old);
  if (whole(change)) cards.push(heatCard("Difference", "after − before", of, change, diverging(), around(inDtype(change).map(([, value]) => value)), signed, say));
  const other = DATA.runs[chosen.other];
  if (other) {
    const names = shared(of, other);
    const theirs = after(other, names);
    const against = minus(after(of, names), theirs);
    if (whole(against)) {
      const title = `Against ${clip(other.name, 40)}`;
      cards.push(heatCard(title, `${clip(of.name, 40)} − ${clip(other.name, 40)}, both after training, over ${names.length} shared task${names.length === 1 ? "" : "s"}`, of, against, diverging(), around(inDtype(against).map(([, value]) => value)), signed,
        (cell, value) => lines(cellName(cell), value === undefined ? "not in both" : `${clip(of.name)} ${one((theirs.get(cellKey(cell)) ?? NaN) + value)}`, value === undefined ? "" : `${clip(other.name)} ${one(theirs.get(cellKey(cell)))}`)));
    } else cards.push(el("div", { className: "card" }, el("h3", {}, `Against ${other.name}`), absence("No cell and task in common", `measure both runs at the same layers, dims, dtypes and tasks to compare them. What embedtrain-evaluate measured lies in a folder of its own, evaluation-NAME: give that instead of the run.`)));
  }
  host.append(el("div", { className: "grid", style: `--least: ${cards.length === 4 ? 420 : 290}px` }, cards));
  if (of.trained.length) host.append(el("p", { className: "key" }, el("span", {}, el("i", { style: "background:none;border:2px solid #e0455e" }), "trained cut")));
}

// The cells that no other beats: as good and cheaper, or better for no more.
function front(points) {
  const found = [];
  for (const point of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) {
    if (!found.length || point.y > found[found.length - 1].y) found.push(point);
  }
  return found;
}
function costCard(title, note, unit, cost, axis) {
  const points = () => DATA.runs.flatMap((of, place) => of.cells.map((cell) => ({ of, place, cell, x: cost(of, cell), y: after(of, namesForAll())?.get(cellKey(cell)) })).filter(({ x, y }) => isNumber(x) && isNumber(y)));
  return plotCard(title, note, () => {
    const all = points();
    const best = front(all);
    const data = [{ type: "scatter", mode: "lines", x: best.map(({ x }) => x), y: best.map(({ y }) => y), line: { color: css("soft"), width: 1.5, shape: "hv", dash: "dot" }, hoverinfo: "skip", name: "Pareto front", showlegend: DATA.runs.length > 1 }];
    const several = DATA.runs.length > 1;
    const layers = ascending(all.map(({ cell }) => cell[0]));
    const groups = several ? DATA.runs.map((_, place) => place) : layers;
    for (const [number, group] of groups.entries()) {
      const own = all.filter((point) => (several ? point.place === group : point.cell[0] === group));
      if (!own.length) continue;
      const colour = several ? runColour(group) : rampColour(number, groups.length);
      data.push({
        type: "scatter", mode: "markers", name: pt(several ? clip(DATA.runs[group].name) : `layer ${group}`), showlegend: true, x: own.map(({ x }) => x), y: own.map(({ y }) => y),
        marker: { size: own.map((point) => (best.includes(point) ? 11 : 7.5)), symbol: own.map(({ cell }) => DASHES[cell[2]] ?? "star"), color: colour, opacity: several ? own.map((point) => (best.includes(point) || point.place === chosen.run ? 1 : 0.45)) : 1, line: { width: own.map((point) => (best.includes(point) ? 2 : 0)), color: css("ink") } },
        hoverinfo: "text", hovertext: own.map(({ of, cell, x, y }) => lines(several ? of.name : null, cellName(cell), `${one(y)} at ${unit(x)}`, isTrained(of, cell) ? "trained" : "", best.some((point) => point.cell === cell) ? "on the Pareto front" : "")),
      });
    }
    return { data, layout: { xaxis: { title: axis, type: "log", ...logTicks(all.map(({ x }) => x)) }, yaxis: { title: "score × 100" } } };
  }, () => {
    const all = points();
    const best = front(all);
    return { columns: ["run", "layer", "dim", "dtype", axis, "score x 100", "Pareto front"], rows: all.map((point) => [point.of.name, ...point.cell, point.x, point.y, best.includes(point) ? "yes" : "no"]) };
  }, { height: 330 });
}
// Ticks of a logarithmic axis that read as numbers: powers of two, or 1-2-5 below ten.
function logTicks(values) {
  if (!values.length) return {};
  const [low, high] = [Math.min(...values), Math.max(...values)];
  let ticks = [];
  for (let power = -4; power <= 6; power += 1) for (const head of [1, 2, 5]) ticks.push(head * 10 ** power);
  ticks = ticks.filter((tick) => tick >= low / 1.6 && tick <= high * 1.6);
  if (low >= 8) { ticks = []; for (let tick = 8; tick <= high * 1.5; tick *= 2) if (tick >= low / 1.5) ticks.push(tick); }
  return { tickvals: ticks, ticktext: ticks.map((tick) => (tick >= 1024 ? `${brief(tick / 1024)}K` : brief(tick))) };
}
// The tasks of the filter that every run with scores has: what their means may be compared on.
function namesForAll() {
  const scored = DATA.runs.filter((of) => of.after !== null);
  if (!scored.length) return [];
  const have = (of) => new Set(of.tasks.filter((_, place) => of.scores[of.after].some((row) => row[place] !== null)).map((task) => task.name));
  const sets = scored.map(have);
  const start = run().after === null ? scored[0] : run();
  return tasksOf(start).map((place) => start.tasks[place].name).filter((name) => sets.every((set) => set.has(name)));
}
function drawCosts(host) {
  if (DATA.runs.every((of) => of.after === null)) return absent(host, "No score to weigh", NOT_YET);
  const names = namesForAll();
  if (!names.length) return absent(host, "The runs have no task in common here", "choose a task that all of them were measured on.");
  const over = names.length === 1 ? names[0] : `mean of ${names.length} tasks`;
  const cards = [costCard("Quality against bytes a vector", over, (x) => `${bytes(x)} a vector`, (_, cell) => bytesOf(cell), "bytes a vector")];
  const timed = DATA.runs.some((of) => of.cost.length);
  if (timed) {
    for (const [kind, text] of [["query", "one query"], ["batch", "a batch"]]) {
      if (!DATA.runs.some((of) => of.cost.some((row) => isNumber(row[kind])))) continue;
      cards.push(costCard(`Quality against ms a text, ${text}`, over, (x) => `${ms(x)} ms a text`, (of, cell) => of.cost.find((row) => row.layer === cell[0] && (row.dim === null || row.dim === undefined || row.dim === cell[1]))?.[kind], `ms a text, ${text}`));
    }
  }
  host.append(el("div", { className: "grid", style: `--least: ${cards.length === 3 ? 300 : 380}px` }, cards));
  const dtypes = unique(DATA.runs.flatMap((of) => of.cells.map((cell) => cell[2])));
  const marks = { float32: "●", int8: "■", binary: "◆", binary_rescore: "▲", binary_rescore_int8: "✚" };
  const layers = ascending(run().cells.map((cell) => cell[0]));
  const groups = DATA.runs.length > 1 ? DATA.runs.map((of, place) => [of.name, runColour(place)]) : layers.map((layer, place) => [`layer ${layer}`, rampColour(place, layers.length)]);
  host.append(keyOf([...groups, ...(dtypes.length > 1 ? dtypes.map((dtype) => [dtype, "", marks[dtype] ?? "★"]) : []), ["Pareto front", "", "┄"]]));
  if (!timed) absent(host, "No ms a text", missing("cost"));
}

function byDim(of, values, dtype) {
  const layers = ascending(of.cells.filter((cell) => cell[2] === dtype).map((cell) => cell[0]));
  const dims = ascending(of.cells.filter((cell) => cell[2] === dtype).map((cell) => cell[1]));
  return { layers, dims, at: (layer, dim) => values.get(cellKey([layer, dim, dtype])) ?? null };
}
function layerLines(of, values, dtype, say, thin = false) {
  const { layers, dims, at } = byDim(of, values, dtype);
  return layers.map((layer, place) => ({
    type: "scatter", mode: "lines+markers", name: `layer ${layer}`, x: dims, y: dims.map((dim) => at(layer, dim)), connectgaps: false,
    line: { color: rampColour(place, layers.length), width: thin ? 1.6 : 2 }, marker: { size: thin ? 4.5 : 6, color: rampColour(place, layers.length) },
    hoverinfo: "text", hovertext: dims.map((dim) => lines(cellName([layer, dim, dtype]), say(at(layer, dim), layer, dim))),
  }));
}
const dimAxis = (dims) => ({ title: "dim", type: "log", tickvals: dims, ticktext: dims.map(String) });

function drawShares(host) {
  const of = run();
  const values = after(of).size ? after(of) : before(of);
  const full = fullCell(of);
  const top = full ? values.get(cellKey(full)) : undefined;
  if (!isNumber(top) || top <= 0) return absent(host, "The full model has no score here", "choose a task that its largest cell was measured on.");
  const dtypes = unique(of.cells.map((cell) => cell[2])).filter((dtype) => dtype === chosen.dtype);
  const shares = new Map([...values].map(([key, value]) => [key, (100 * value) / top]));
  const { dims } = byDim(of, shares, chosen.dtype);
  host.append(el("div", { className: "grid" }, dtypes.map(() => plotCard("Share of full quality", `${whatIsShown(of)} · 100 % is ${cellName(full)} with ${one(top)}`, () => ({
    data: layerLines(of, shares, chosen.dtype, (share, layer, dim) => (share === null ? "not measured" : `${one(share)} % of full quality · ${one(values.get(cellKey([layer, dim, chosen.dtype])))}`)),
    layout: { margin: { l: 50, r: 12, t: 10, b: 40 }, xaxis: dimAxis(dims), yaxis: { title: "% of full quality", rangemode: "tozero" }, shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 100, y1: 100, line: { color: css("soft"), width: 1, dash: "dot" } }] },
  }), () => ({ columns: ["layer", "dim", "dtype", "% of full quality"], rows: of.cells.filter((cell) => cell[2] === chosen.dtype && shares.has(cellKey(cell))).map((cell) => [...cell, shares.get(cellKey(cell))]) }), { height: 320, wide: true, below: layersKey(byDim(of, shares, chosen.dtype).layers) }))));
}

function drawTypes(host) {
  const of = run();
  const types = unique(of.tasks.map((task) => task.type)).sort();
  const cards = types.map((type) => {
    const names = of.tasks.filter((task) => task.type === type).map((task) => task.name);
    const [old, now] = [before(of, names), after(of, names)];
    const values = now.size ? now : old;
    const { layers, dims, at } = byDim(of, values, chosen.dtype);
    if (![...values.keys()].some((key) => key.endsWith(` ${chosen.dtype}`))) return el("div", { className: "card" }, el("h3", {}, type), absence(`No scores of dtype ${chosen.dtype}`, "that cover all tasks of this type."));
    const last = layers[layers.length - 1];
    return plotCard(type, `${names.length} task${names.length === 1 ? "" : "s"}: ${clip(names.join(", "), 70)}`, () => {
      const data = layerLines(of, values, chosen.dtype, one, true);
      if (old.size && now.size) data.push({ type: "scatter", mode: "lines", x: dims, y: dims.map((dim) => old.get(cellKey([last, dim, chosen.dtype])) ?? null), line: { color: css("soft"), width: 1.5, dash: "dot" }, hoverinfo: "text", hovertext: dims.map((dim) => lines(`before, layer ${last} · D${dim}`, one(old.get(cellKey([last, dim, chosen.dtype]))))) });
      return { data, layout: { margin: { l: 40, r: 8, t: 6, b: 40 }, xaxis: dimAxis(dims), yaxis: {} } };
    }, () => ({ columns: ["layer", "dim", "dtype", `${type} x 100`], rows: layers.flatMap((layer) => dims.map((dim) => [layer, dim, chosen.dtype, at(layer, dim)])) }), { height: 230 });
  });
  host.append(el("div", { className: "grid", style: "--least: 250px" }, cards));
  const layers = ascending(of.cells.map((cell) => cell[0]));
  host.append(layersKey(layers, of.before !== null && of.after !== null));
}
function drawScores(host) {
  const of = run();
  const step = of.after ?? of.before;
  const kinds = unique(of.tasks.map((task) => task.type));
  const columns = [{ name: "layer", number: true }, { name: "dim", number: true }, { name: "dtype" }, { name: "bytes", number: true, show: count },
    { name: "trained" }, { name: "mean", number: true, show: one }, ...of.tasks.map((task) => ({ name: task.name, number: true, show: one }))];
  const rows = of.cells.map((cell, row) => {
    const values = of.scores[step][row];
    return [...cell, bytesOf(cell), isTrained(of, cell) ? "●" : "", values.every(isNumber) && values.length ? average(values) : null, ...values];
  });
  host.append(el("div", { className: "grid" }, tableCard("All scores", `${step === 0 ? "" : `step ${count(step)} · `}main metric of each task × 100 · ${kinds.length} task type${kinds.length === 1 ? "" : "s"}`, columns, rows, { sort: 5, down: true })));
}

// Searches that go through small cuts first, beside searches with one cut.
function drawFunnels(host) {
  const of = run();
  const rows = of.funnels.filter((row) => isShown(of, row.task));
  if (!rows.length) return absent(host, "No funnels", of.funnels.length ? "of the tasks that are chosen above." : missing("funnels"));
  const tasks = unique(rows.map((row) => row.task));
  const cards = tasks.slice(0, 6).map((task) => {
    const own = rows.filter((row) => row.task === task);
    const kinds = [[false, css("soft"), "one cut, all documents"], [true, css("accent"), "funnel"]].filter(([kind]) => own.some((row) => row.is_funnel === kind));
    return plotCard(task, "quality against the cost of a search; further left is cheaper", () => ({
      data: kinds.map(([kind, colour, name]) => { const some = own.filter((row) => row.is_funnel === kind); return { type: "scatter", mode: "markers", name, x: some.map((row) => row.multiply_adds), y: some.map((row) => row.score), marker: { size: 10, color: colour, symbol: kind ? "diamond" : "circle" }, hoverinfo: "text", hovertext: some.map((row) => lines(row.name, `${one(row.score)}, ${count(Math.round(row.multiply_adds))} multiply-adds a query`, `${one(100 * row.share)} % of a full search`)) }; }),
      layout: { xaxis: { title: "multiply-adds a query", type: "log", exponentformat: "SI" }, yaxis: { title: "score × 100" } },
    }), () => ({ columns: ["search", "score x 100", "multiply-adds", "share"], rows: own.map((row) => [row.name, row.score, row.multiply_adds, row.share]) }), { height: 280, below: keyOf(kinds.map(([, colour, name]) => [name, colour])) });
  });
  host.append(el("div", { className: "grid", style: "--least: 380px" }, cards));
  host.append(el("div", { className: "grid" }, tableCard("Searches", "multiply-adds of one query over all documents, without its encoding", [{ name: "task" }, { name: "search", code: true }, { name: "score", number: true, show: one }, { name: "multiply-adds", number: true, show: (value) => count(Math.round(value)) }, { name: "of a full search, %", number: true, show: (value) => one(value) }], rows.map((row) => [row.task, row.name, row.score, row.multiply_adds, 100 * row.share]))));
}
