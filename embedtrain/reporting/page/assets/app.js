// The page: filters, sections in their order, themes, and the live view.
const missing = (part, of = run()) => of.missing[part] ?? "the run folder does not hold it.";
function absence(what, why) {
  return el("p", { className: "absence" }, el("b", {}, `${what.replace(/\.$/, "")}.`), why ? ` ${why.charAt(0).toUpperCase()}${why.slice(1)}` : "");
}
const absent = (host, what, why) => host.append(absence(what, why));

const ORDER = [
  ["verdict", "Verdict", "Which cut to ship, what it costs, and what training did.", drawVerdict, null],
  ["heat", "Layer × dim", "Score × 100 of every cut: layers up, dims to the right.", drawHeatMaps, "scores"],
  ["cost", "Quality and cost", "Further left is cheaper, further up is better; the ringed cells are on the Pareto front.", drawCosts, "scores"],
  ["share", "Kept by dim", "What a prefix of the vector keeps of the full model's quality, a line a layer.", drawShares, "scores"],
  ["types", "By task type", "The same model on each type of task.", drawTypes, "scores"],
  ["funnels", "Funnels", "Searches that go through small cuts first, and what they cost.", drawFunnels, null],
  ["scores", "Scores", "Every number that was measured.", drawScores, "scores"],
  ["curves", "Training", "Loss, validation, learning rate, throughput and gradient norm over the steps.", drawCurves, "curves"],
  ["negatives", "Negatives", "How many candidates each rule took out of the negatives.", drawNegatives, "curves"],
  ["health", "Health", "Whether prefixes use their space: alignment, uniformity, rank, hubs, and what is left of the last layer.", drawHealth, "health"],
  ["map", "Map", "Queries and documents in two dimensions.", drawMap, "map"],
  ["tests", "Significance", "Which differences are more than chance.", drawTests, "tests"],
  ["settings", "Settings", DATA.runs.length > 1 ? "What differs between the runs." : "What the run was given, over its defaults.", drawSettings, null],
  ["setup", "Contract and environment", "What the model promises, and where it was trained.", drawSetup, null],
];
const lacks = (of, part) => part !== null && (part === "scores" ? !of.cells.length : part === "curves" ? !Object.keys(of.curves.series).length : false);

function drawSection([id, title, lead, draw, part]) {
  const host = el("section", { id }, el("h2", {}, title), el("p", { className: "lead" }, lead));
  try {
    if (lacks(run(), part) && !(part === "scores" && id === "cost" && DATA.runs.some((of) => of.cells.length))) absent(host, part === "scores" ? "No scores" : "No curves", missing(part));
    else draw(host);
  } catch (error) { // one section that cannot be drawn leaves the others
    console.error(error);
    absent(host, "This part could not be drawn", String(error));
  }
  return host;
}

function choice(label, name, options) {
  const select = el("select", { "aria-label": label, id: `choose-${name}`, onchange: () => {
    chosen[name] = typeof chosen[name] === "number" ? Number(select.value) : select.value;
    drawPage();
  } }, options.map(([value, text]) => el("option", { value: String(value), selected: String(value) === String(chosen[name]) }, clip(text, 60))));
  return el("label", {}, label, select);
}
function drawFilters() {
  const of = run();
  const types = unique(of.tasks.map((task) => task.type)).sort();
  const named = of.tasks.filter((task) => !chosen.type || task.type === chosen.type).map((task) => task.name).sort();
  const dtypes = unique(of.cells.map((cell) => cell[2]));
  const within = [];
  if (DATA.runs.length > 1) {
    within.push(choice("Run", "run", DATA.runs.map((each, place) => [place, each.name])));
    within.push(choice("Against", "other", [[-1, "no other run"], ...DATA.runs.map((each, place) => [place, each.name]).filter(([place]) => place !== chosen.run)]));
  }
  if (of.tasks.length) {
    within.push(choice("Task type", "type", [["", types.length === 1 ? types[0] : `all ${types.length} types`], ...(types.length > 1 ? types.map((type) => [type, type]) : [])]));
    within.push(choice("Task", "task", [["", named.length === 1 ? named[0] : `mean of ${named.length} tasks`], ...(named.length > 1 ? named.map((name) => [name, name]) : [])]));
    within.push(choice("Dtype", "dtype", dtypes.map((dtype) => [dtype, dtype])));
  }
  document.getElementById("filters").replaceChildren(...within);
}
// What is chosen must exist in the run that is shown.
function settle() {
  chosen.run = Math.min(chosen.run, DATA.runs.length - 1);
  const of = run();
  if (chosen.other === chosen.run || chosen.other >= DATA.runs.length) chosen.other = -1;
  if (chosen.type && !of.tasks.some((task) => task.type === chosen.type)) chosen.type = "";
  if (chosen.task && !of.tasks.some((task) => task.name === chosen.task && (!chosen.type || task.type === chosen.type))) chosen.task = "";
  const dtypes = of.cells.map((cell) => cell[2]);
  if (!dtypes.includes(chosen.dtype)) chosen.dtype = dtypes[0] ?? "float32";
}
function drawPage() {
  settle();
  const top = window.scrollY;
  const focused = document.activeElement?.id;
  const host = document.getElementById("sections");
  host.style.minHeight = `${host.offsetHeight}px`; // the page does not jump while it is drawn anew
  forget(host);
  drawFilters();
  document.getElementById("subject").textContent = DATA.runs.length === 1 ? run().name : `${DATA.runs.length} runs`;
  host.replaceChildren(...ORDER.map(drawSection));
  document.getElementById("contents").replaceChildren(...ORDER.map(([id, title, , , part]) => el("a", { href: `#${id}`, className: lacks(run(), part) || document.querySelector(`#${id} > .absence:nth-child(3)`) ? "absent" : "" }, title)));
  document.getElementById("made").textContent = `Made by embedtrain ${DATA.version} from ${DATA.runs.length} run folder${DATA.runs.length === 1 ? "" : "s"}. Scores are × 100.`;
  watchPlots();
  watchSections();
  window.scrollTo(0, top);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  host.style.minHeight = "";
}

let reading = null;
function watchSections() {
  reading?.disconnect();
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.getAttribute("href").slice(1), link]));
  reading = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      links.forEach((link, id) => link.classList.toggle("here", id === target.id));
      const bar = document.getElementById("contents");
      const link = links.get(target.id);
      if (link && bar.scrollWidth > bar.clientWidth) bar.scrollLeft = link.offsetLeft - 40;
    }
  }, { rootMargin: "-25% 0px -70% 0px" });
  document.querySelectorAll("section").forEach((section) => reading.observe(section));
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
  document.getElementById("theme").setAttribute("aria-label", `Use the ${theme === "dark" ? "light" : "dark"} theme`);
}
document.getElementById("theme").addEventListener("click", () => { setTheme(isDark() ? "light" : "dark"); drawPage(); });
const night = window.matchMedia("(prefers-color-scheme: dark)");
setTheme(night.matches ? "dark" : "light");
night.addEventListener("change", () => { setTheme(night.matches ? "dark" : "light"); drawPage(); });
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());

// Served: ask whether the runs have changed, and take what is new. A file asks nobody.
async function follow() {
  const state = document.getElementById("live");
  state.hidden = false;
  state.textContent = "live";
  for (let known = DATA.state; ; ) {
    await new Promise((done) => setTimeout(done, 2000));
    try {
      const now = await (await fetch("state", { cache: "no-store" })).text();
      state.classList.remove("lost");
      state.textContent = "live";
      if (now === known) continue;
      DATA = await (await fetch("data", { cache: "no-store" })).json();
      known = DATA.state;
      drawPage();
    } catch {
      state.classList.add("lost");
      state.textContent = "not served any more";
    }
  }
}
chosen.run = DATA.first;
if (DATA.runs.length > 1) { // begin with the run to ship
  const best = recommended(DATA.runs.filter((of) => of.after !== null), namesForAll(), chosen.tolerance);
  if (best) chosen.run = DATA.runs.indexOf(best.of);
}
if (DATA.runs.length > 1) chosen.other = DATA.runs.findIndex((_, place) => place !== chosen.run);
drawPage();
performance.mark("answers");
// The page is painted and answers first; plotly, the largest script by far, begins when the browser has nothing to do.
requestAnimationFrame(() => setTimeout(() => (window.requestIdleCallback ?? setTimeout)(() => { plotly(); watchPlots(); }, { timeout: 1000 })));
if (DATA.live) follow();
