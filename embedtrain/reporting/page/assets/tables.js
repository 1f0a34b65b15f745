// Tables that sort and filter. A column is {name, number, show(value), mark(value, row)}; a row is a list of values.
const AT_FIRST = 25; // rows shown before "show all", where nothing else is said

function tableCard(title, note, columns, rows, options = {}) {
  const order = { column: options.sort ?? -1, down: options.down ?? false };
  let all = false;
  let words = "";
  const shown = (value, place) => (columns[place].show ? columns[place].show(value) : plain(value));
  const current = () => {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = rows.filter((row) => {
      const text = row.slice(0, columns.length).map(shown).join(" ").toLowerCase();
      return wanted.every((word) => text.includes(word));
    });
    if (order.column < 0) return kept;
    const sign = order.down ? -1 : 1;
    const empty = (value) => value === null || value === undefined || value === "";
    return [...kept].sort((one, two) => {
      const [a, b] = [one[order.column], two[order.column]];
      if (empty(a) || empty(b)) return empty(a) - empty(b); // what is missing comes last, either way
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : plain(a).localeCompare(plain(b), "en", { numeric: true }));
    });
  };
  const body = el("tbody");
  const foot = el("div");
  const tally = el("span", { className: "count" });
  const heads = columns.map((column, place) =>
    el("th", { scope: "col", className: column.number ? "number" : "" },
      el("button", { type: "button", onclick: () => {
        order.down = order.column === place ? !order.down : Boolean(column.number);
        order.column = place;
        draw();
      } }, column.name)),
  );
  const exported = () => ({ columns: columns.map((column) => column.name), rows: current().map((row) => row.slice(0, columns.length).map(shown)), right: columns.map((column) => column.number) });
  const raw = () => ({ columns: columns.map((column) => column.name), rows: current().map((row) => row.slice(0, columns.length)) });
  const name = fileName(title);
  const get = el("div", { className: "get" },
    button("CSV", `Download ${title} as CSV`, () => save(`${name}.csv`, asCsv(raw()), "text/csv")),
    button("MD", `Download ${title} as Markdown`, () => save(`${name}.md`, asMarkdown(exported()), "text/markdown")),
    button("TeX", `Download ${title} as LaTeX`, () => save(`${name}.tex`, asLatex(exported()), "application/x-tex")));
  const sift = rows.length > 8 || options.sift
    ? el("div", { className: "sift" },
        el("input", { type: "search", placeholder: "Filter rows", "aria-label": `Filter ${title}`, oninput: (event) => { words = event.target.value; draw(); } }),
        options.beside, tally)
    : options.beside ? el("div", { className: "sift" }, options.beside) : null;

  function draw() {
    const found = current();
    heads.forEach((head, place) => head.setAttribute("aria-sort", place !== order.column ? "none" : order.down ? "descending" : "ascending"));
    const some = all ? found : found.slice(0, options.first ?? AT_FIRST);
    body.replaceChildren(...some.map((row) => el("tr", { className: options.here?.(row) ? "here" : "" },
      columns.map((column, place) => el("td", { className: [column.number ? "number" : "", column.tight ? "tight" : column.long ? "long" : "", column.code ? "code" : "", column.mark?.(row[place], row) ?? ""].join(" ").trim() }, shown(row[place], place))))));
    tally.textContent = found.length === rows.length ? `${count(rows.length)} rows` : `${count(found.length)} of ${count(rows.length)} rows`;
    foot.replaceChildren(found.length > some.length ? el("button", { type: "button", className: "more", onclick: () => { all = true; draw(); } }, `Show all ${count(found.length)} rows`) : "");
  }
  draw();
  return el("div", { className: options.narrow ? "card" : "card wide" },
    el("header", {}, el("div", {}, el("h3", {}, title), note ? el("p", {}, note) : null), get), sift,
    el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": title }, el("table", {}, el("thead", {}, el("tr", {}, heads)), body)), foot);
}
