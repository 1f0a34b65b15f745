"""Tasks on development splits: to choose by, so that the test splits stay clean."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.evaluation.catalogue.local.sets import RANKINGS, local_sets
from embedtrain.evaluation.catalogue.presets import PRESETS
from embedtrain.evaluation.catalogue.tasks import find_tasks
from embedtrain.types import InputError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

logger = logging.getLogger(__name__)

DEVELOPMENT = ("dev", "val", "valid", "validation")


def development_tasks(
    names: Sequence[str] | None,
    evaluated: Sequence[str] = (),
    data_root: str | Path | None = None,
    languages: Sequence[str] | None = None,
    *,
    allow_test: bool = False,
) -> list[AbsTask]:
    """The tasks of these names, as `find_tasks` reads them, if all their splits are for development.

    Without names those of `evaluated` on their development splits, where they have one; of mteb's tasks the
    preset `dev` knows some.

    Raises:
        InputError: a split is not for development (unless `allow_test`), or there is none to be found.
    """
    if names is None:
        chosen = _counterparts(evaluated, data_root, languages)
        if not chosen:
            raise InputError(
                "none of evaluation.tasks has a development split to measure on while training: give "
                "eval_during.tasks, e.g. [dev] for mteb's or [sts/mine:dev], or eval_during.allow_test=true "
                "with the tasks whose test split may be looked at"
            )
        return chosen
    tasks = find_tasks(names, data_root, languages)
    for task in tasks:
        others = [split for split in task.eval_splits if split not in DEVELOPMENT]
        if others and not allow_test:
            raise InputError(
                f"{task.metadata.name} would be measured on {', '.join(others)} while training, and weights "
                "chosen by test data score too high on them. Choose a development split (NAME:dev, "
                "NAME:validation, tasks=[dev]), or say allow_test=true; local rankings have no splits and "
                "count as test data"
            )
    return tasks


def _counterparts(
    evaluated: Sequence[str], data_root: str | Path | None, languages: Sequence[str] | None
) -> list[AbsTask]:
    """The evaluated tasks on development splits; those without one are named in the log."""
    names = {name.partition(":")[0] for name in evaluated}
    chosen = list(dict.fromkeys(_local(names, data_root)))
    of_preset = {entry.name.partition(":")[0]: entry.name for entry in PRESETS["dev"]}
    for task in find_tasks(evaluated, data_root, languages) if evaluated else []:
        if hasattr(task, "files"):
            continue
        split = next((split for split in DEVELOPMENT if split in task.metadata.eval_splits), None)
        name = task.metadata.name
        if split is not None or name in of_preset:
            chosen.append(of_preset.get(name, f"{name}:{split}"))
        else:
            logger.info("%s has no development split and is not measured while training", name)
    return find_tasks(chosen, data_root, languages) if chosen else []


def _local(names: set[str], data_root: str | Path | None) -> Iterator[str]:
    """Local sets of these names, each with its development split."""
    if data_root is None:
        return
    for item in local_sets(Path(data_root).expanduser()):
        if item.kind in RANKINGS or not names & {"local", item.path, item.name}:
            continue
        split = next((split for split in DEVELOPMENT if split in item.files), None)
        if split is not None:
            yield f"{item.path}:{split}"
