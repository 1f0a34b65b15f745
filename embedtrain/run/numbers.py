"""The numbers of a run by name: for loggers, and for sweepers that look for the best run.

Names are those of metrics.jsonl (`train/`, `val/`, `eval/`), and for scores of the untouched and the trained
model `before/` and `after/` with a task and cell, or with `mean`, which is over sub-models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean

from embedtrain.files.measured.metrics import METRICS, read_metrics
from embedtrain.files.run_folder import RunFolder
from embedtrain.files.scores import read_scores
from embedtrain.ranks import rank
from embedtrain.run.hooks import by_task
from embedtrain.run.results.dashboards import show_on_dashboards
from embedtrain.run.run import Run
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.names import nearest
from embedtrain.training.callbacks.eval_during import means_of
from embedtrain.training.loggers import end_loggers, log_scores
from embedtrain.types import InputError


def scores_by_name(folder: RunFolder, step: int, when: str) -> dict[str, float]:
    """The main scores of a step, and their means over tasks and sub-models; empty if nothing was measured."""
    lines = read_scores(folder.scores) if folder.scores.exists() else []
    tasks = by_task([score for score in lines if score.step == step])
    if not tasks:
        return {}
    named = {f"{when}/{task}_{cell}": value for task, cells in tasks.items() for cell, value in cells.items()}
    means = {f"{when}/mean_{sub}": value for sub, value in means_of(tasks).items()}
    return named | means | {f"{when}/mean": fmean(means.values())}


@contextmanager
def logged(run: Run) -> Iterator[None]:
    """Inside, a run is trained and measured; its scores then go to its loggers, which end."""
    try:
        yield
    except BaseException:
        end_loggers(run.stage.trainer, exit_code=1)
        raise
    if rank() == 0:
        log_scores(run.stage.trainer, scores_by_name(run.folder, 0, "before"), 0)
        after = scores_by_name(run.folder, run.final_step, "after")
        log_scores(run.stage.trainer, after, run.final_step - 1)
        show_on_dashboards(run)
    end_loggers(run.stage.trainer, exit_code=0)


def check_optimized(settings: TrainSettings) -> None:
    """Do nothing if the run will have the number that `optimized_metric` names.

    Raises:
        InputError: naming what the run lacks for it.
    """
    name, data = settings.optimized_metric, settings.data
    validates = (data.validation is not None, data.validation_fraction, data.validation_rows)
    there = {
        "train": (True, ""),
        "val": (any(validates), "data.validation_rows=500"),
        "eval": (settings.eval_during is not None, "eval_during=sweep"),
        "before": (settings.evaluation.tasks and settings.evaluation.before, "evaluation.tasks=[local]"),
        "after": (settings.evaluation.tasks, "evaluation.tasks=[local]"),
    }
    if name is None:
        return
    kind = name.partition("/")[0]
    if "/" not in name or kind not in there:
        listed = ", ".join(f"{one}/..." for one in there)
        raise InputError(f"optimized_metric={name}: metrics are {listed}, e.g. optimized_metric=val/mean")
    is_there, cure = there[kind]
    if not is_there:
        raise InputError(f"optimized_metric={name}: the run has no {kind}/ metrics; give e.g. {cure}")


def optimized(run: Run) -> float | None:
    """The number that a sweeper gets of a finished run: `optimized_metric`.

    Where that is None: the mean of the final scores, else of the last validation, else None.

    Raises:
        InputError: naming the nearest metric, if the run has none of that name.
    """
    numbers: dict[str, float] = {}
    for line in read_metrics(run.folder.path / METRICS):  # none of a run too short for a line of it
        numbers |= line.values
    numbers |= scores_by_name(run.folder, 0, "before")
    numbers |= scores_by_name(run.folder, run.final_step, "after")
    name = run.settings.optimized_metric
    if name is None:
        return next((numbers[key] for key in ("after/mean", "val/mean") if key in numbers), None)
    if name not in numbers:
        listed = ", ".join(sorted(numbers))
        raise InputError(f"optimized_metric={name}{nearest(name, list(numbers))} There are: {listed}")
    return numbers[name]
