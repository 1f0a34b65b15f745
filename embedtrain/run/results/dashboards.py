"""What a dashboard is given of a finished run beside its curves: pictures, tables, the verdict, the model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from embedtrain.escaping import file_name
from embedtrain.files.measured.lines import plain
from embedtrain.files.measured.verdict import Verdict, read_verdict
from embedtrain.files.scores import main_scores, read_scores
from embedtrain.model.folder.cards.card import PICTURE
from embedtrain.model.folder.contract import FILE as CONTRACT
from embedtrain.ranks import rank
from embedtrain.run.run import Run
from embedtrain.training.loggers import others
from embedtrain.types import Score

log = logging.getLogger(__name__)
COLUMNS = ("step", "task", "split", "metric", "layer", "dim", "dtype", "value")


def show_on_dashboards(run: Run) -> None:
    """Give wandb the heat map as image and as table, the verdict as summary, the model as an artifact.

    What fails there is a warning: the run is whole without it. `logger.log_model=false` keeps the model here.
    """
    for logger in others(run.stage.trainer) if rank() == 0 else ():
        if isinstance(logger, WandbLogger):
            try:
                _show(run, logger)
            except Exception as error:
                log.warning("wandb did not take the results: %s", error)


def _show(run: Run, logger: WandbLogger) -> None:
    import wandb

    folder, experiment = run.folder.path, logger.experiment
    scores = main_scores(read_scores(run.folder.scores))
    if scores:
        shown: dict[str, Any] = {"cells": wandb.Table(list(COLUMNS), rows_of(scores))}
        if (folder / PICTURE).exists():
            shown["heat_map"] = wandb.Image(str(folder / PICTURE))
        experiment.log(shown)
    verdict = read_verdict(folder)
    if verdict is not None:
        experiment.summary.update(summary_of(verdict))
    settings = {} if run.settings.logger is None else run.settings.logger.settings
    if settings.get("log_model", True) and run.folder.model.is_dir():
        experiment.log_artifact(_artifact(run.settings.name, run.folder.model))


def rows_of(scores: list[Score]) -> list[list[Any]]:
    """A row a main score, as `COLUMNS` says."""
    return [[getattr(score, name) for name in COLUMNS] for score in scores]


def summary_of(verdict: Verdict) -> dict[str, Any]:
    """The verdict as values of a summary, which sweeps and tables can sort by."""
    facts: dict[str, Any] = {"verdict": "\n".join(verdict.lines)}
    facts |= {f"verdict/{change.task}": change.verdict or "no items kept" for change in verdict.changes}
    facts |= {f"finding/{item.name}": item.text for item in verdict.findings}
    if verdict.moved is not None:
        facts["verdict/moved"] = verdict.moved
    if verdict.cut is not None:
        facts |= {f"cut/{key}": value for key, value in plain(verdict.cut).items() if value is not None}
    return facts


def _artifact(name: str, model: Path) -> Any:  # noqa: ANN401 - wandb has no types here
    """The model's folder, with its contract; the files stay where they are until they are sent."""
    import wandb

    contract = json.loads((model / CONTRACT).read_text("utf-8"))
    artifact = wandb.Artifact(f"model-{file_name(name)}", "model", metadata=contract)
    for file in sorted(path for path in model.rglob("*") if path.is_file()):
        artifact.add_file(str(file), file.relative_to(model).as_posix(), policy="immutable")
    return artifact
