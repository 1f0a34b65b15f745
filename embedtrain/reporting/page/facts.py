"""What a page shows of a run folder, as plain values; what is not there is said in words.

Nothing here fails: a file that cannot be read is a sentence under `problems`, a part that no file holds one
under `missing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from embedtrain.escaping import terminal
from embedtrain.files.checkpoint_folder import StageFolder
from embedtrain.files.measured.cost import Speed, read_cost
from embedtrain.files.measured.health import Health, read_health
from embedtrain.files.measured.lines import plain
from embedtrain.files.measured.points import map_files, read_map
from embedtrain.files.measured.verdict import read_verdict
from embedtrain.files.measured.weights import read_weights
from embedtrain.files.reading import read_json, reason_of
from embedtrain.files.run_record import Record, flat, read_record
from embedtrain.files.scores import TaskFacts, read_scores, read_tasks
from embedtrain.reporting.funnels import searches
from embedtrain.reporting.page.curves import curves_of
from embedtrain.reporting.page.table import score_table
from embedtrain.types import Score

T = TypeVar("T")
Facts = dict[str, Any]
NO_MODEL: Facts = {}
MISSING = {
    "scores": "the folder has no scores.jsonl: train with evaluation.tasks=[...], or run embedtrain-evaluate "
    "and give its folder.",
    "curves": "the folder has no metrics.jsonl: nothing was trained here, or no step has been logged yet.",
    "negatives": "no rule of negatives was active in this run, or it trained without negatives.",
    "cost": "the folder has no cost.jsonl: evaluation measures it, and this folder is of a version or a step "
    "before that.",
    "health": "the folder has no health.jsonl: evaluation measures it, and this folder is of a version or a "
    "step before that.",
    "weights": "the folder has no weights.json: training writes it at its end.",
    "verdict": "the folder has no verdict.json: training writes it at its end.",
    "settings": "the folder has no config.yaml that a run wrote.",
    "contract": "the folder has no model/embedtrain.json: the model is written when training ends.",
    "map": "it is drawn of retrieval tasks; none was measured here, or no vectors of one were sampled.",
    "tests": "they need scores of items, for each query or pair, before and after training or of two runs.",
    "funnels": "none was measured: embedtrain-evaluate with funnels=[...] searches through small cuts first.",
}


def run_facts(folder: Path) -> list[Facts]:
    """What is known of a folder: one entry, or one a model where scores.jsonl is of several."""
    problems: list[str] = []
    scores: list[Score] = _tried(problems, lambda: read_scores(folder / "scores.jsonl"), [])
    tasks: Mapping[str, TaskFacts] = _tried(problems, lambda: read_tasks(folder / "tasks.json"), {})
    record = read_record(folder / "config.yaml")
    if record is None and (folder / "config.yaml").exists():
        problems.append("config.yaml is damaged, or no run wrote it.")
    settings = {} if record is None else flat(record.config)
    health = [line._asdict() for line in _tried(problems, lambda: read_health(folder), list[Health]())]
    speeds = _tried(problems, lambda: read_cost(folder), list[Speed]())
    contract = _tried(problems, lambda: _mapping(folder / "model" / "embedtrain.json"), NO_MODEL)
    curves = curves_of(folder, problems)
    finished = _tried(problems, lambda: StageFolder(folder).finished, None)
    shared: Facts = {
        "folder": str(folder),
        "state": _tried(
            problems, lambda: _state(folder, record, curves, finished=finished is not None), "folder is gone"
        ),
        "problems": problems,
        "curves": curves,
        "verdict": plain(_tried(problems, lambda: read_verdict(folder), None)),
        "weights": plain(_tried(problems, lambda: read_weights(folder), None)),
        "contract": {key: _short(value) for key, value in contract.items() if key != "trained"},
        "trained": _trained(record, contract),
        "settings": {key: _short(value) for key, value in settings.items()},
        "given": [] if record is None else sorted(flat(record.given or {})),
        "environment": {} if record is None else _environment(record),
        "missing": dict(MISSING),
        "tests": [],
        "map": [one for path in map_files(folder) if (one := _tried(problems, lambda: _map(path), None))],  # noqa: B023
    }
    names = sorted({score.run for score in scores}) or [folder.name]
    several = len(names) > 1
    return [
        {
            **shared,
            "name": f"{folder.name} · {name}" if several else folder.absolute().name,
            **score_table([score for score in scores if score.run == name], tasks, trains=record is not None),
            "health": [line for line in health if not several or line["run"] == name],
            "funnels": _funnels([score for score in scores if score.run == name]),
            "cost": _costs([line for line in speeds if not several or line.run == name]),
        }
        for name in names
    ]


def shown(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The same with texts as they may be shown, control characters written out; nan and inf are None."""
    if isinstance(value, str):
        return terminal(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {shown(str(key)): shown(part) for key, part in value.items()}
    return [shown(part) for part in value] if isinstance(value, list | tuple) else value


def _tried(problems: list[str], read: Callable[[], T], otherwise: T) -> T:
    """What `read` gives; a sentence and the other where it cannot."""
    try:
        return read()
    except Exception as error:  # files of anybody: whatever a reader did not foresee is said too
        problems.append(reason_of(error).removeprefix("InputError: "))
        return otherwise


def _state(folder: Path, record: Record | None, curves: Facts, *, finished: bool) -> str:
    """How far a run has come, in words."""
    if not any(folder.iterdir()):
        return "empty folder"
    if record is None:
        return "evaluation" if (folder / "scores.jsonl").is_file() else "no run wrote this folder"
    if finished:
        return "finished"
    if (folder / "model").is_dir():
        return "trained, not measured to its end"
    planned = record.part("trainer").get("max_steps")
    steps = f"step {curves['last'] + 1}" if curves["last"] is not None else "no step logged"
    return f"unfinished: {steps}{f' of {planned}' if planned else ''}"


def _trained(record: Record | None, contract: Mapping[str, Any]) -> list[list[int]]:
    """The (layer, dim) that the run trains: what its contract says, else what its settings name."""
    pairs = contract.get("trained")
    if not isinstance(pairs, list):
        pairs = [] if record is None else record.part("plan").get("pairs")
    return [pair for pair in pairs or () if isinstance(pair, list) and len(pair) == 2]


def _environment(record: Record) -> Facts:
    more = {"commit": record.commit, "world_size": record.world_size}
    more = {key: value for key, value in more.items() if value is not None}
    return {key: _short(value) for key, value in {**record.versions, **more, **record.identity}.items()}


def _funnels(scores: list[Score]) -> list[Facts]:
    """Searches of the last step that measured funnels."""
    last = max((score.step for score in scores if score.metric == "search_share"), default=None)
    return [row._asdict() for row in searches([score for score in scores if score.step == last])]


def _costs(speeds: list[Speed]) -> list[Facts]:
    """A row a layer: ms a text as one query and in a batch."""
    rows: dict[int, Facts] = {}
    for speed in speeds:
        row = rows.setdefault(speed.layer, {"layer": speed.layer, "device": speed.device})
        row["query" if speed.texts == 1 else "batch"] = speed.ms
        if speed.texts > 1:
            row["texts"] = speed.texts
    return [rows[layer] for layer in sorted(rows)]


def _map(path: Path) -> Facts:
    """A map as columns."""
    about, points = read_map(path)
    return {
        "task": about.task,
        "cell": f"L{about.layer} · D{about.dim}",
        "step": about.step,
        "depth": about.depth,
        "documents": about.documents,
        "file": str(path),
        "query": [point.kind == "query" for point in points],
        **{name: [getattr(point, name) for point in points] for name in ("text", "rank", "failed", "near")},
        "relevant": [point.relevant for point in points],
        "x": [round(point.x, 4) for point in points],
        "y": [round(point.y, 4) for point in points],
    }


def _mapping(path: Path) -> Facts:
    if not path.exists():
        return {}
    value = read_json(path, "Export the model again")
    return value if isinstance(value, dict) else {}


def _short(value: object) -> str:
    """A setting as one would type it."""
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()
