"""What study_2d.py found: tables and a picture for docs/study.md, from the files of the runs alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from study_methods import MINILM, MODELS, Method, Model, compared_in, methods, tuned_by

from embedtrain.evaluation.comparing.families import between_seeds, over_seeds
from embedtrain.reporting.figures import save_heat_map
from embedtrain.types import Score, SubModel

PAGE = Path(__file__).parent.parent / "docs" / "study.md"
PICTURE = PAGE.parent / "images" / "study.png"
BEGIN, END = "<!-- table: made by benchmarks/study_2d.py --tables -->\n", "<!-- end -->\n"
SEPARATE = "separate"
BEST = "ours"
AGAINST = (SEPARATE, "peer", "pairs")
WORDS = {
    "untouched": "untouched", "rotated": "untouched + rotation", SEPARATE: "a separate model for each size",
    "separate_gated": "the same with gated mean, no dropout",
    "mrl": "MRL (last layer), cut", "two_dmse": "2DMSE", "pairs": "Starbucks pairs", "grid": "grid",
    "defaults_own": "six pairs, plain mean", "defaults": "six pairs, gates: the defaults",
    "exits": "ours, plain mean, last matrix, dropout 0.1", "with_last_matrix": "ours with a last matrix",
    "ours": "**ours**",
    "peer": "`Matryoshka2dLoss`, all layers and dims", "peer_default": "`Matryoshka2dLoss`, defaults",
}  # fmt: skip
PARTS = {
    "with_last_matrix": "with all parts", "without_gates": "without gates",
    "without_distill": "without the teacher", "without_rotation": "without the matrices",
    "without_layer_decay": "without larger steps below", "with_dropout": "with dropout",
}  # fmt: skip
SETTINGS = {"stsb": "STS-B (CoSENT)", "dictionary": "Dictionary (InfoNCE)"}
TASKS = {"stsb": "STS-B", "sickr": "SICK-R", "dictionary": "reverse dictionary", "cranfield": "Cranfield"}
BACKBONES = {"minilm": "MiniLM", "mpnet_base": "all-mpnet-base-v2, 12 layers x 768"}
Run = dict[str, Any]
Scores = dict[str, dict[int, dict[str, float]]]  # task -> seed -> cell -> score


def columns(model: Model) -> list[Sequence[SubModel]]:
    """What columns are means of: each size, all sizes, the grid."""
    return [*((size,) for size in model.sizes), model.sizes, model.grid]


def heads(model: Model) -> list[str]:
    """What stands above the columns."""
    return [
        *(f"({size.layer}, {size.dim})" for size in model.sizes),
        "mean of six",
        f"mean of {len(model.grid)}",
    ]


def write_page(results: Path) -> None:
    """The tables into docs/study.md, and the picture, where there are runs."""
    runs = [json.loads(file.read_text("utf-8")) for file in sorted(results.glob("*.json"))]
    parts = [part for model in MODELS.values() for name in SETTINGS for part in of_setting(name, model, runs)]
    if not parts or not PAGE.is_file():
        return
    head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(parts) + f"\n{END}{tail}", "utf-8")
    draw(runs)


def of_setting(name: str, model: Model, runs: Sequence[Run]) -> list[str]:
    """The parts of the page on one setting; none without a run that was scored on its test set."""
    mine = _compared(name, model, runs)
    best = chosen(model, mine)
    tests = {method: found for method in WORDS if name in (found := tested(method, best))}
    if not tests:
        return []
    backbone = "" if model is MINILM else f", {BACKBONES[model.name]}"
    return [
        f"## {SETTINGS[name]}{backbone}\n",
        scores_table(name, model, tests, best),
        *differences(name, model, tests),
        others_table(name, model, tests),
        *rates_table(model, mine, best),
        *parts_table(model, mine),
    ]


def _compared(name: str, model: Model, runs: Sequence[Run]) -> list[Run]:
    """The runs of a setting and a backbone that are compared: of one precision."""
    wanted = (name, model.name, compared_in(name, model))
    return [
        run for run in runs if (run["setting"], run.get("backbone", MINILM.name), run["precision"]) == wanted
    ]


def chosen(model: Model, runs: Sequence[Run]) -> list[Run]:
    """The runs of each method's best rate on development data."""
    best = []
    for name, method in methods(model).items():
        tried = [run for run in runs if run["method"] == name]
        if first := [run for run in tried if not run["seed"]]:
            rate = max(first, key=lambda run: tuned_by(run, method, model))["lr"]
            best += [run for run in tried if run["lr"] == rate]
    return best


def tested(method: str, runs: Sequence[Run]) -> Scores:
    """The test scores of a method, those of separate models put together."""
    found: Scores = {}
    for run in runs:
        if run["method"] == method or run["method"].startswith(f"{method}_L"):
            for task, cells in run.get("test", {}).items():
                found.setdefault(task, {}).setdefault(run["seed"], {}).update(cells)
    return found


def scores_table(name: str, model: Model, tests: Mapping[str, Scores], runs: Sequence[Run]) -> str:
    """Sizes and means of every method on the setting's own test set."""
    rows = [["method", "rate", *heads(model), "seeds", "CPU-s"]]
    for method, scores in tests.items():
        shown = [spread(means(scores[name], cells)) for cells in columns(model)]
        shown.append(str(len(scores[name])))
        rows.append([WORDS[method], *rate_and_cost(method, model, runs, shown)])
    title = f"{TASKS[name]} test x 100, mean over seeds ± standard deviation:\n\n"
    return title + table(rows)


def rate_and_cost(method: str, model: Model, runs: Sequence[Run], middle: list[str]) -> list[str]:
    """The rate that dev chose, what is between, and CPU-seconds of training all sizes once, fastest runs."""
    names = [name for name in methods(model) if name == method or name.startswith(f"{method}_L")]
    found = [[run for run in runs if run["method"] == name and "test" in run] for name in names]
    rates = sorted({run["lr"] for some in found for run in some})
    seconds = sum(min(run["cpu_seconds"] for run in some) for some in found) if all(found) else None
    rate = " ... ".join(f"{one:g}" for one in ([rates[0], rates[-1]] if len(rates) > 1 else rates))
    return ["" if rates == [0.0] else rate, *middle, "" if seconds is None else f"{seconds:.0f}"]


def differences(name: str, model: Model, tests: Mapping[str, Scores]) -> list[str]:
    """Ours minus others: each size, both means, with intervals over seeds."""
    if BEST not in tests:
        return []
    rows = [["ours minus", *heads(model)]]
    for other in (one for one in AGAINST if one in tests):
        sides = [[means(tests[side][name], cells) for cells in columns(model)] for side in (other, BEST)]
        rows.append([WORDS[other], *(difference(*pair) for pair in zip(*sides, strict=True))])
    return ["Differences, with 95 % t intervals over paired seeds:\n\n" + table(rows)]


def difference(first: Mapping[str, float], second: Mapping[str, float]) -> str:
    """Second minus first of the seeds that both have, with its interval where there are several."""
    shared = [seed for seed in first if seed in second]
    if len(shared) < 2:
        return f"{second[shared[0]] - first[shared[0]]:+.1f}" if shared else ""
    found = between_seeds({one: first[one] for one in shared}, {one: second[one] for one in shared})
    return f"{found.difference:+.1f} ({found.low:+.1f} ... {found.high:+.1f})"


def others_table(name: str, model: Model, tests: Mapping[str, Scores]) -> str:
    """The mean of the six sizes on the test sets of other tasks."""
    every = [task for task in TASKS if task != name]
    tasks = [
        task for task in every if any(means(scores.get(task, {}), model.sizes) for scores in tests.values())
    ]
    rows = [["method", *(TASKS[task] for task in tasks)]]
    for method, scores in tests.items():
        found = [spread(means(scores.get(task, {}), model.sizes)) for task in tasks]
        rows += [[WORDS[method], *found]] if any(found) else []
    return "Mean of the six sizes on what it was not trained for:\n\n" + table(rows)


def rates_table(model: Model, runs: Sequence[Run], best: Sequence[Run]) -> list[str]:
    """What chose the rates, in bold what was chosen: of seed 0; nothing where no method has several."""
    means = f"mean of {len(model.grid)}, or own size"
    rows = [["method", f"development score at each rate, {means}"]]
    for name, method in methods(model).items():
        tried = {
            run["lr"]: tuned_by(run, method, model)
            for run in runs
            if run["method"] == name and not run["seed"]
        }
        taken = {run["lr"] for run in best if run["method"] == name}
        if not method.tested or len(tried) < 2:
            continue
        shown = (f"{lr:g}: {score:.1f}" for lr, score in sorted(tried.items()))
        marked = (f"**{one}**" if lr in taken else one for lr, one in zip(sorted(tried), shown, strict=True))
        rows.append([words_of(name, method), " · ".join(marked)])
    return ["What chose the rates, with seed 0:\n\n" + table(rows)] if len(rows) > 1 else []


def words_of(name: str, method: Method) -> str:
    """A method as tables name it."""
    if method.size is None:
        return WORDS[name]
    gates = ", gates, no dropout" if name.startswith("separate_gated") else ""
    return f"separate ({method.size.layer}, {method.size.dim}){gates}"


def parts_table(model: Model, runs: Sequence[Run]) -> list[str]:
    """What each part of ours gives: development scores of seed 0 without it; nothing where all were there."""
    *_, largest, _, grid = heads(model)
    rows = [["ours with a last matrix", "rate", "mean of six", grid, largest]]
    best = {run["method"]: run for run in chosen(model, runs) if not run["seed"]}
    for name in (name for name in PARTS if name in best):
        (cells,) = best[name]["dev"].values()
        every = [mean(cells, some) for some in (model.sizes, model.grid, model.sizes[-1:])]
        rows.append([PARTS[name], f"{best[name]['lr']:g}", *(f"{value:.1f}" for value in every)])
    return (
        ["What each part gives, on development data with seed 0:\n\n" + table(rows)] if len(rows) > 2 else []
    )


def mean(cells: Mapping[str, float], subs: Iterable[SubModel]) -> float:
    """The mean over some cells."""
    return fmean(cells[str(sub)] for sub in subs)


def means(by_seed: Mapping[int, Mapping[str, float]], subs: Sequence[SubModel]) -> dict[str, float]:
    """The mean over some cells, of each seed that has them all."""
    return {
        str(seed): mean(cells, subs)
        for seed, cells in sorted(by_seed.items())
        if all(str(sub) in cells for sub in subs)
    }


def spread(values: Mapping[str, float]) -> str:
    """Mean ± standard deviation over seeds, the mean alone of one; nothing of none."""
    if not values:
        return ""
    found = over_seeds(list(values.values()))
    return f"{found.mean:.1f}" + ("" if found.sd is None else f" ± {found.sd:.1f}")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown, the first its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def draw(runs: Sequence[Run]) -> None:
    """Every cell untouched and by our best, the mean over seeds, on STS-B test."""
    best, sides = chosen(MINILM, _compared("stsb", MINILM, runs)), []
    for method in ("untouched", BEST):
        seeds = tested(method, best).get("stsb", {})
        found = {cell: means(seeds, [cell]) for cell in MINILM.grid}
        sides.append([_score(cell, fmean(values.values())) for cell, values in found.items() if values])
    if all(sides):
        save_heat_map(PICTURE, sides[0], sides[1], title="STS-B test, Spearman x 100: untouched, ours")


def _score(sub: SubModel, value: float) -> Score:
    return Score("study", 0, "stsb", "test", sub.layer, sub.dim, "spearman", value / 100)
