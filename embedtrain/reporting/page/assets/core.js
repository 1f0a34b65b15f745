"use strict";
// What all sections share: the data, what is chosen, elements that hold text alone, and numbers as they are shown.
let DATA = JSON.parse(document.getElementById("data").textContent);
const chosen = { run: 0, other: -1, type: "", task: "", dtype: "float32", tolerance: 2 };
const sections = []; // {id, title, draw(host), part}: in the order of the page

// An element with text and other elements in it; nothing is ever read as HTML.
function el(tag, given = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") made.style.cssText = value;
    else if (name in made && name !== "list" && name !== "role") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...inside.flat().filter((part) => part !== null && part !== undefined));
  return made;
}

const run = () => DATA.runs[chosen.run];
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const one = (value) => (isNumber(value) ? value.toFixed(1) : "–");
const signed = (value) => (isNumber(value) ? `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(value).toFixed(1)}` : "–");
const count = (value) => (isNumber(value) ? value.toLocaleString("en-US") : "–");
const bytes = (value) => (value < 10000 ? `${count(value)} B` : `${(value / 1024).toFixed(1)} KiB`);
const brief = (value) => (isNumber(value) ? String(Number(value.toPrecision(4))) : "–");
const ms = (value) => (isNumber(value) ? String(Number(value.toPrecision(3))) : "–");
const counted = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;
const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const unique = (values) => [...new Set(values)];
const ascending = (values) => unique(values).sort((a, b) => a - b);
const cellName = ([layer, dim, dtype]) => `L${layer} · D${dim}${dtype && dtype !== "float32" ? ` · ${dtype}` : ""}`;
const cellKey = (cell) => cell.join(" ");
const isTrained = (of, cell) => of.trained.some(([layer, dim]) => layer === cell[0] && dim === cell[1]);

// The numbers of the tasks that the filter lets through.
function tasksOf(of) {
  const all = of.tasks.map((_, place) => place);
  return all.filter(
    (place) => (!chosen.type || of.tasks[place].type === chosen.type) && (!chosen.task || of.tasks[place].name === chosen.task),
  );
}

// Means x 100 by cell key of one step over tasks (by name; those of the filter when not given). A cell that lacks a task has none.
function means(of, step, names) {
  const table = of.scores[step];
  const found = new Map();
  if (!table) return found;
  const measured = new Set(of.tasks.map((_, place) => place).filter((place) => table.some((row) => row[place] !== null)));
  let places = names ? names.map((name) => of.tasks.findIndex((task) => task.name === name)) : tasksOf(of);
  if (!names) places = places.filter((place) => measured.has(place));
  if (!places.length || places.includes(-1)) return found;
  of.cells.forEach((cell, row) => {
    const values = places.map((place) => table[row][place]);
    if (values.every((value) => value !== null)) found.set(cellKey(cell), average(values));
  });
  return found;
}
const before = (of, names) => (of.before === null ? new Map() : means(of, of.before, names));
const after = (of, names) => (of.after === null ? new Map() : means(of, of.after, names));
const shared = (one, two) => {
  const theirs = new Set(two.tasks.map((task) => task.name));
  return tasksOf(one).map((place) => one.tasks[place].name).filter((name) => theirs.has(name));
};

// The largest cell of float32: what shares and losses are taken of.
function fullCell(of) {
  const whole = of.cells.filter((cell) => cell[2] === "float32");
  return (whole.length ? whole : of.cells).reduce((best, cell) => (!best || cell[0] * cell[1] > best[0] * best[1] ? cell : best), null);
}
const bytesOf = ([, dim, dtype]) => {
  const signs = Math.ceil(dim / 8);
  return { float32: 4 * dim, int8: dim, binary_rescore_int8: signs + dim }[dtype] ?? signs;
};
function whatIsShown(of = run()) {
  if (chosen.task) return chosen.task;
  const number = tasksOf(of).length;
  const kind = chosen.type ? ` of type ${chosen.type}` : "";
  return number === 1 ? of.tasks[tasksOf(of)[0]].name : `mean of ${number} tasks${kind}`;
}
