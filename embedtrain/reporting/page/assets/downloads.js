// Files that the reader takes along: made here, in the browser, of what is shown.
const MARKUP = /([\\`*_{}\[\]()<>#!|~&$])/g;
const LATEX = { "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", $: "\\$", "#": "\\#", _: "\\_", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}" };
const plain = (value) => (value === null || value === undefined ? "" : String(value));

function csvCell(value) {
  if (isNumber(value)) return String(value);
  const text = plain(value).replace(/\s*\n\s*/g, " ");
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // what a spreadsheet would compute
  return /[",]/.test(safe) || safe !== safe.trim() ? `"${safe.replaceAll('"', '""')}"` : safe;
}
const asCsv = ({ columns, rows }) => [columns, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
function asMarkdown({ columns, rows, right }) {
  const line = (cells) => `| ${cells.map((cell) => plain(cell).replace(/\s+/g, " ").replace(MARKUP, "\\$1")).join(" | ")} |\n`;
  return line(columns) + `|${columns.map((_, place) => (right[place] ? " ---: " : " --- ")).join("|")}|\n` + rows.map(line).join("");
}
function asLatex({ columns, rows, right }) {
  const clean = (cell) => plain(cell).replace(/\s+/g, " ").replace(/[\\{}&%$#_~^<>]/g, (letter) => LATEX[letter]).replaceAll("−", "$-$").replaceAll("·", "$\\cdot$").replaceAll("→", "$\\to$");
  const line = (cells) => `${cells.map(clean).join(" & ")} \\\\\n`;
  const head = `\\begin{tabular}{${columns.map((_, place) => (right[place] ? "r" : "l")).join("")}}\n\\toprule\n`;
  return `${head}${line(columns)}\\midrule\n${rows.map(line).join("")}\\bottomrule\n\\end{tabular}\n`;
}

const fileName = (text) => text.replace(/[^\p{L}\p{N}]+/gu, "_").replace(/^_+|_+$/g, "").slice(0, 80) || "report";
function save(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
function button(label, what, onclick) {
  return el("button", { type: "button", title: what, "aria-label": what, onclick }, label);
}
