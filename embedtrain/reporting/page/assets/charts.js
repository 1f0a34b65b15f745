// Plots: drawn when they come near the screen, and again when the theme or the width changes.
const waiting = new Map(); // element -> draws it
const drawn = new Map();
const RUN_COLOURS = ["#2f6fd0", "#e07b39", "#2a9d8f", "#b5468b", "#8a6fd1", "#c9a227", "#5d7f3a", "#d1495b", "#4ba3c7", "#8c6d4f", "#6b7785", "#3d5a80"];
const CIVIDIS = [[0, "#00204c"], [0.13, "#00316f"], [0.25, "#2f436b"], [0.38, "#4f576c"], [0.5, "#6c6d72"], [0.63, "#8b8678"], [0.75, "#ada375"], [0.88, "#d2c06a"], [1, "#ffe945"]];
const RAMP = { light: ["#b7c9e8", "#0d2f66"], dark: ["#31507f", "#cfe2ff"] };
const DASHES = { float32: "circle", int8: "square", binary: "diamond", binary_rescore: "triangle-up", binary_rescore_int8: "cross" };
const isDark = () => document.documentElement.dataset.theme === "dark";
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// plotly, whose code waits in the page as text until it is needed.
function plotly() {
  const code = document.getElementById("plotly");
  if (code) {
    document.head.append(el("script", { textContent: code.textContent }));
    code.remove();
  }
  return Plotly;
}

// Text for plotly, which reads tags, entities and %{...} in what it is given.
const pt = (text) => plain(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("%{", "%&#123;");
const lines = (...parts) => parts.filter((part) => part !== null && part !== undefined && part !== "").map(pt).join("<br>");
const clip = (text, length = 28) => (plain(text).length > length ? `${plain(text).slice(0, length - 1)}…` : plain(text));
const runColour = (place) => RUN_COLOURS[place % RUN_COLOURS.length];
function mixed(share) {
  const [from, to] = RAMP[isDark() ? "dark" : "light"].map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  return `rgb(${from.map((value, place) => Math.round(value + (to[place] - value) * share)).join(",")})`;
}
const rampColour = (place, number) => mixed(number < 2 ? 1 : place / (number - 1));
function diverging() {
  return [[0, isDark() ? "#f0963f" : "#b4540a"], [0.5, isDark() ? "#20262e" : "#f7f7f7"], [1, isDark() ? "#62a8f0" : "#1f5fbf"]];
}
// Black or white, whichever reads better on a colour between two of a scale.
function inkOn(scale, share) {
  const at = Math.min(1, Math.max(0, share));
  const next = Math.max(1, scale.findIndex(([place]) => place >= at));
  const [[low, from], [high, to]] = [scale[next - 1], scale[next]];
  const parts = [1, 3, 5].map((place) => {
    const [a, b] = [from, to].map((text) => parseInt(text.slice(place, place + 2), 16));
    return a + ((b - a) * (at - low)) / (high - low || 1);
  });
  return 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2] > 140 ? "#101418" : "#ffffff";
}

function layoutOf(more = {}) {
  const axis = { gridcolor: css("line"), linecolor: css("line"), zeroline: false, automargin: true, tickfont: { size: 11.5, color: css("soft") }, ticks: "", fixedrange: false };
  const titled = (given = {}) => ({ ...axis, ...given, title: given.title ? { text: given.title, font: { size: 12, color: css("soft") }, standoff: 8 } : undefined });
  const { xaxis, yaxis, ...rest } = more;
  return {
    font: { family: css("sans"), size: 12, color: css("ink") }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 46, r: 12, t: 10, b: 40 }, height: 300, hovermode: "closest", dragmode: "zoom", showlegend: false,
    hoverlabel: { bgcolor: css("paper"), bordercolor: css("line"), font: { color: css("ink"), size: 12.5, family: css("sans") }, align: "left" },
    legend: { orientation: "h", y: -0.24, x: 0, font: { size: 11.5, color: css("soft") }, itemsizing: "constant" },
    xaxis: titled(xaxis), yaxis: titled(yaxis), ...rest,
  };
}

// What the colours of a plot mean: [[name, colour, sign]].
const keyOf = (named) => el("p", { className: "key" }, named.map(([name, colour, sign]) => el("span", {}, sign ? `${sign} ` : el("i", { style: `background:${colour}` }), clip(name, 40))));
const layersKey = (layers, old) => keyOf([...layers.map((layer, place) => [`layer ${layer}`, rampColour(place, layers.length)]), ...(old ? [[`before, layer ${layers[layers.length - 1]}`, "", "┄"]] : [])]);

// A card with a plot: `build()` gives {data, layout}, `table()` {columns, rows} of what it shows.
function plotCard(title, note, build, table, options = {}) {
  const host = el("div", { className: "plot", role: "img", "aria-label": `${title}. ${note ?? ""}`, style: `min-height:${options.height ?? 300}px` });
  const name = fileName(`${run()?.name ?? ""} ${title}`);
  const figure = () => {
    const { data, layout } = build();
    return { data, layout: layoutOf({ height: options.height ?? 300, ...layout }) };
  };
  const draw = () => {
    const { data, layout } = figure();
    plotly().react(host, data, layout, { displaylogo: false, responsive: true, displayModeBar: false, doubleClick: "reset" });
  };
  const picture = async () => {
    const { data, layout } = figure();
    const named = data.filter((trace) => trace.name && trace.showlegend !== false).length > 1;
    const onPaper = { ...layout, showlegend: named, paper_bgcolor: css("paper"), plot_bgcolor: css("paper"), title: { text: pt(title), font: { size: 15 } }, margin: { ...layout.margin, t: 44, b: (layout.margin?.b ?? 40) + (named ? 26 * Math.ceil(data.length / 4) : 0) } };
    const width = Math.max(640, host.clientWidth);
    const height = (options.height ?? 300) + 34 + (named ? 26 * Math.ceil(data.length / 4) : 0);
    const address = await plotly().toImage({ data, layout: { ...onPaper, width, height } }, { format: "png", scale: 2, width, height });
    const link = el("a", { href: address, download: `${name}.png` });
    document.body.append(link);
    link.click();
    link.remove();
  };
  waiting.set(host, draw);
  return el("div", { className: `card ${options.wide ? "wide" : ""}` },
    el("header", {}, el("div", {}, el("h3", {}, title), note ? el("p", {}, note) : null),
      el("div", { className: "get" },
        button("PNG", `Download ${title} as PNG`, picture),
        button("CSV", `Download ${title} as CSV`, () => save(`${name}.csv`, asCsv(table()), "text/csv")))),
    host, options.below);
}

const nearScreen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting && waiting.has(target)) drawNow(target);
  }
}, { rootMargin: "300px 0px" });
function drawNow(host) {
  const draw = waiting.get(host);
  waiting.delete(host);
  nearScreen.unobserve(host);
  drawn.set(host, draw);
  draw();
}
function watchPlots() {
  if (!window.Plotly) return; // the page can be read and filtered before
  for (const host of waiting.keys()) if (host.isConnected) nearScreen.observe(host);
  for (const host of drawn.keys()) {
    if (!host.isConnected) { Plotly.purge(host); drawn.delete(host); }
  }
}
function forget(within) {
  for (const list of [waiting, drawn]) for (const host of list.keys()) {
    if (within.contains(host)) { nearScreen.unobserve(host); if (list === drawn) Plotly.purge(host); list.delete(host); }
  }
}
