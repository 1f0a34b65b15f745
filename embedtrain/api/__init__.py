"""The commands as functions: the same names and settings, objects back, in the process that calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from embedtrain.api.objects import Evaluation, Model, Run, load, place_of
from embedtrain.settings.commands import (
    CompareSettings,
    EvaluateSettings,
    ExportSettings,
    MineSettings,
    ReportSettings,
    TrainSettings,
)
from embedtrain.settings.options import settings_from
from embedtrain.settings.signatures import plain
from embedtrain.settings.tools import MergeSettings, PairsSettings, RotateSettings
from embedtrain.types import InputError


class Mined(NamedTuple):
    """Rows that a mining, or a making of pairs, wrote."""

    rows: Path  # training rows
    statistics: dict[str, Any]


@plain
def train(**settings: Any) -> Run:  # noqa: ANN401 - as many types as there are settings
    """Train a model, or continue a run that was stopped; as `embedtrain-train`.

    Args:
        settings: `name` and `data` must be given. A group takes an option's name (`loss="cosent"`), a mapping
            (`plan={"pairs": [[3, 96], [6, 384]]}`, `loss={"option": "cosent", "temperature": 0.1}`) or None;
            `recipe` starts from a recipe.

    Raises:
        InputError: for what can be mended; nothing has been written then.
        KeyboardInterrupt: after Ctrl-C in the main thread; the last whole step is saved.
    """
    from embedtrain.run.train import train_here as run_training

    made = settings_from(TrainSettings, "train", settings)
    if made.trainer.devices * made.trainer.num_nodes > 1:
        raise InputError(
            "several devices need a process each: use the command embedtrain-train, or trainer={'devices': 1}"
        )
    return Run(run_training(made).folder.path)


@plain
def evaluate(model: Model | Run | str | Path, **settings: Any) -> Evaluation:  # noqa: ANN401
    """Scores of a model at every (layer, dim, dtype) asked for; as `embedtrain-evaluate`.

    Raises:
        InputError: for what cannot be measured, and for tasks that failed once all others are written.
    """
    from embedtrain.run.evaluate import evaluate_encoder

    trust = settings.get("trust_remote_code", False)
    loaded = model if isinstance(model, Model) else load(model, device="cpu", trust_remote_code=trust)
    made = settings_from(EvaluateSettings, "evaluate", {"model": loaded.source, **settings})
    result = evaluate_encoder(made, loaded.encoder, loaded.source)
    if result is None:
        raise InputError("plan_only prints what an evaluation costs: use the command embedtrain-evaluate")
    if result.failed is not None:
        raise result.failed
    return Evaluation(result.folder, result.scores)


@plain
def export(model: Run | str | Path, out: str | Path, **settings: Any) -> Path:  # noqa: ANN401
    """The folder of a smaller model, or of an ONNX graph; as `embedtrain-export`.

    Raises:
        InputError: if there is no such model or cut, or `out` exists already.
    """
    from embedtrain.run.export import export as write

    keys = {"model": place_of(model, "model"), "out": place_of(out, "out"), **settings}
    return write(settings_from(ExportSettings, "export", keys)).folder


@plain
def mine(source: str | Path, out: str | Path, **settings: Any) -> Mined:  # noqa: ANN401
    """Training rows with hard negatives; as `embedtrain-mine`.

    Raises:
        InputError: for what can be mended; nothing has been written then.
    """
    from embedtrain.run.mine import mine as run_mining

    keys = {"source": place_of(source, "source"), "out": place_of(out, "out"), **settings}
    result = run_mining(settings_from(MineSettings, "mine", keys))
    if result.rows is None or result.statistics is None:
        raise InputError("shard encodes a part of the texts: use the command embedtrain-mine for it")
    return Mined(result.rows, json.loads(result.statistics.read_text("utf-8")))


@plain
def pairs(source: str | Path | Sequence[str | Path], out: str | Path, **settings: Any) -> Mined:  # noqa: ANN401
    """Training rows of documents without labels; as `embedtrain-pairs`.

    Raises:
        InputError: for what can be mended; no rows have been written then.
    """
    from embedtrain.run.pairs import make_pairs

    every = source if isinstance(source, list | tuple) else [source]
    keys = {"source": [place_of(one, "source") for one in every], "out": place_of(out, "out"), **settings}
    result = make_pairs(settings_from(PairsSettings, "pairs", keys))
    return Mined(result.rows, json.loads(result.statistics.read_text("utf-8")))


@plain
def rotate(
    model: Run | str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    **settings: Any,  # noqa: ANN401
) -> Path:
    """The folder of the same model with vectors whose prefixes are worth more; as `embedtrain-rotate`.

    Raises:
        InputError: if there is no such model, rows are no pairs, or `out` exists already.
    """
    from embedtrain.run.rotating.rotate import rotate as run_rotating

    rows = [place_of(one, "data") for one in (data if isinstance(data, list | tuple) else [data])]
    keys = {"model": place_of(model, "model"), "source": rows, "out": place_of(out, "out"), **settings}
    return run_rotating(settings_from(RotateSettings, "rotate", keys)).folder


@plain
def merge(runs: Sequence[Run | Model | str | Path], **settings: Any) -> Run:  # noqa: ANN401
    """One model of several runs, as a run of its own; as `embedtrain-merge`.

    Raises:
        InputError: for runs that cannot be merged, and for tasks that failed once all others are written.
    """
    from embedtrain.run.merging.merge import merge as run_merging

    listed = [run.source if isinstance(run, Model) else run for run in _listed(runs)]
    made = settings_from(
        MergeSettings, "merge", {"runs": [place_of(run, "runs") for run in listed], **settings}
    )
    return Run(run_merging(made).folder)


@plain
def compare(runs: Sequence[Run | Evaluation | str | Path], **settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """Which differences are more than chance: rows, and what `embedtrain-compare` writes beside them.

    Raises:
        InputError: for what cannot be compared.
    """
    from embedtrain.run.compare import comparison_of, subset_of

    made = settings_from(CompareSettings, "compare", {"runs": _places(runs), **settings})
    return subset_of(made) if made.subset else comparison_of(made)


@plain
def report(
    runs: Run | Evaluation | str | Path | Sequence[Run | Evaluation | str | Path],
    **settings: Any,  # noqa: ANN401
) -> Path:
    """The file of one HTML page of runs, finished or not; as `embedtrain-report`.

    Raises:
        InputError: a folder that does not exist, a file in the place that is not ours, plotly is missing.
    """
    from embedtrain.run.report.page import write_report

    if settings.get("serve"):
        raise InputError("serve=true answers until Ctrl-C: use the command embedtrain-report")
    return write_report(settings_from(ReportSettings, "report", {"runs": _places(runs), **settings})).page


def _places(runs: object) -> list[str]:
    """The folders of a run or several."""
    return [place_of(run, "runs") for run in _listed(runs)]


def _listed(runs: object) -> list[object]:
    """One thing, or several, as a list."""
    every = [runs] if isinstance(runs, str | Path | Run | Evaluation | Model) else runs
    if not isinstance(every, Iterable):
        raise InputError(f"runs must be a list of runs or folders, got {runs!r}")
    return list(every)
