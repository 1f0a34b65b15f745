// What was run: settings beside each other, contract, environment.
function drawSettings(host) {
  const with_ = DATA.runs.filter((of) => Object.keys(of.settings).length);
  if (!with_.length) return absent(host, "No settings", missing("settings"));
  const keys = unique(with_.flatMap((of) => Object.keys(of.settings))).sort();
  const differs = (key) => unique(with_.map((of) => of.settings[key] ?? null)).length > 1;
  const several = with_.length > 1;
  let everything = false;
  const place = el("div", { className: "grid" });
  const beside = el("label", {}, el("input", { type: "checkbox", onchange: (event) => { everything = event.target.checked; draw(); } }), several ? "also equal settings" : "also defaults");
  function draw() {
    const shown = keys.filter((key) => everything || (several ? differs(key) : with_[0].given.includes(key)));
    const columns = [{ name: "setting", code: true }, ...with_.map((of) => ({ name: clip(of.name, 36), code: true, mark: (value, row) => (several && !differs(row[0]) ? "dim" : "") }))];
    const title = several ? (everything ? "Settings of all runs" : "Settings that differ") : everything ? "All settings" : "Settings that were given";
    const note = several ? `${shown.length} of ${keys.length} effective settings, defaults included; – is not set` : `${shown.length} of ${keys.length} effective settings`;
    place.replaceChildren(tableCard(title, note, columns, shown.map((key) => [key, ...with_.map((of) => of.settings[key] ?? "–")]), { beside, sift: true }));
  }
  draw();
  host.append(place);
  lacking(host, "settings", "settings");
}
// Which runs have nothing of a part that others have.
function lacking(host, part, name, reason = part) {
  const without = DATA.runs.filter((of) => !Object.keys(of[part]).length);
  if (!without.length) return;
  absent(host, `No ${name}${DATA.runs.length > 1 ? ` of ${without.map((of) => of.name).join(", ")}` : ""}`, missing(reason, without[0]));
}
function pairsTable(title, note, from) {
  const keys = unique(DATA.runs.flatMap((of) => Object.keys(of[from])));
  if (!keys.length) return null;
  const shown = DATA.runs.filter((of) => Object.keys(of[from]).length);
  return tableCard(title, note, [{ name: from === "contract" ? "field" : "what", code: true }, ...shown.map((of) => ({ name: clip(of.name, 36) }))], keys.map((key) => [key, ...shown.map((of) => of[from][key] ?? "–")]));
}
function drawSetup(host) {
  const tables = [pairsTable("Contract", "what decides an embedding of the exported model (model/embedtrain.json)", "contract"), pairsTable("Environment", "what the run was started with", "environment")];
  host.append(el("div", { className: "grid" }, tables.filter(Boolean)));
  lacking(host, "contract", "contract");
  lacking(host, "environment", "environment", "settings");
  const files = DATA.runs.map((of) => [of.name, of.state, of.folder, of.problems.join(" ")]);
  host.append(el("div", { className: "grid" }, tableCard("Run folders", "what this report was made of", [{ name: "run" }, { name: "state" }, { name: "folder", code: true }, { name: "could not be read" }], files)));
}
