// Queries and documents of a retrieval task in two dimensions.
let mapTask = null;
function drawMap(host) {
  const maps = run().map ?? [];
  if (!maps.length) return absent(host, "No map", missing("map"));
  const wanted = chosen.task && maps.some(({ task }) => task === chosen.task) ? chosen.task : mapTask;
  const map = maps.find(({ task }) => task === wanted) ?? maps[0];
  const queries = map.rank.map((_, place) => place).filter((place) => map.query[place]);
  const failed = queries.filter((place) => map.failed[place]);
  const good = queries.filter((place) => !map.failed[place]);
  const documents = map.rank.map((_, place) => place).filter((place) => !map.query[place]);
  const say = (place) => {
    const near = map.near[place] ?? [];
    const text = wrapped(map.text[place]);
    const found = !map.query[place] ? "document" : map.failed[place] ? `query: its document is ${`number ${count(map.rank[place])}`}` : `query: its document is number ${map.rank[place]}`;
    return [lines(found), ...text.map((line) => `<b>${pt(line)}</b>`), ...(near.length ? [pt("nearest:")] : []), ...near.slice(0, 5).map((other) => pt(`· ${clip(map.text[other], 64)}${(map.relevant[place] ?? []).includes(other) ? " ✓" : ""}`))].join("<br>");
  };
  const trace = (name, places, marker) => ({ type: "scatter", mode: "markers", name: `${name} (${count(places.length)})`, x: places.map((place) => map.x[place]), y: places.map((place) => map.y[place]), customdata: places, marker, hoverinfo: "text", hovertext: places.map(say) });
  const card = plotCard(`${map.task} at ${map.cell}`, `${step(map.step)} · ${count(queries.length)} queries and ${count(documents.length)} of ${count(map.documents)} documents on their two main axes; ${count(failed.length)} queries have no relevant document among the first ${map.depth}`, () => ({
    data: [
      trace("documents", documents, { size: 4.5, color: css("soft"), opacity: 0.4 }),
      { type: "scatter", mode: "lines", x: [], y: [], line: { color: css("accent"), width: 1.2 }, hoverinfo: "skip", showlegend: false },
      trace("found", good, { size: 7, color: css("good"), opacity: 0.85 }),
      trace("failed", failed, { size: 8, color: css("bad"), symbol: "x", opacity: 0.95 }),
    ],
    layout: { showlegend: true, margin: { l: 10, r: 10, t: 8, b: 40 }, legend: { orientation: "h", y: -0.04, x: 0, font: { size: 12, color: css("soft") } }, xaxis: { showticklabels: false, showgrid: false }, yaxis: { showticklabels: false, showgrid: false } },
  }), () => ({ columns: ["kind", "text", "x", "y", "rank", "failed", "nearest"], rows: map.rank.map((rank, place) => [map.query[place] ? "query" : "document", map.text[place], map.x[place], map.y[place], rank, map.query[place] ? (map.failed[place] ? "yes" : "no") : "", (map.near[place] ?? []).map((other) => map.text[other]).join(" | ")]) }), { height: 520, wide: true });
  const plot = card.querySelector(".plot");
  const link = (event) => {
    const place = event.points[0].customdata;
    const near = map.near[place] ?? [];
    const through = (values) => near.flatMap((other) => [values[place], values[other], null]);
    Plotly.restyle(plot, { x: [through(map.x)], y: [through(map.y)] }, [1]);
  };
  const first = waiting.get(plot);
  waiting.set(plot, () => { first(); waitForHover(plot, link); });
  const picks = maps.length > 1 ? el("div", { className: "sift" }, el("label", {}, "task ", el("select", { "aria-label": "Task of the map", onchange: (event) => { mapTask = event.target.value; drawPage(); } }, maps.map(({ task }) => el("option", { value: task, selected: task === map.task }, task))))) : null;
  const missed = failed.map((place) => [map.text[place], map.rank[place], (map.relevant[place] ?? []).map((other) => map.text[other]).join(" | "), (map.near[place] ?? []).slice(0, 3).map((other) => map.text[other]).join(" | ")]);
  host.append(el("div", { className: "grid" }, picks, card, missed.length ? tableCard("Failed queries", `no relevant document among the first ${map.depth}`, [{ name: "query", long: true }, { name: "rank", number: true, show: (value) => (value === null ? "–" : String(value)) }, { name: "relevant" }, { name: "nearest instead", long: true }], missed, { first: 8 }) : null));
  if (map.file) host.append(el("p", { className: "lead" }, "The same points for embedding-atlas: ", el("code", {}, `embedding-atlas ${map.file} --text text --x x --y y`)));
}
function waitForHover(plot, link) {
  plot.removeAllListeners?.("plotly_hover");
  plot.on("plotly_hover", link);
}
function wrapped(text, width = 70) {
  const found = [""];
  for (const word of clip(text, 220).split(/\s+/)) {
    if (found[found.length - 1].length + word.length > width) found.push("");
    found[found.length - 1] += `${found[found.length - 1] ? " " : ""}${word}`;
  }
  return found;
}
