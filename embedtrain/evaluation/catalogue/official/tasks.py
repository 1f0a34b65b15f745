"""mteb's own tasks, benchmarks and our presets of them, by name. Importing this module imports mteb."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import mteb
from mteb.abstasks.aggregated_task import AbsTaskAggregate

from embedtrain.evaluation.catalogue.official.plain_labels import with_plain_labels
from embedtrain.evaluation.catalogue.presets import PRESETS, SMOKE
from embedtrain.evaluation.mteb_private import benchmark_names, mock_tasks, silenced, task_names
from embedtrain.types import InputError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

logger = logging.getLogger(__name__)


def official_names() -> list[str]:
    """Every name that `official` knows: presets, tasks, benchmarks and their aliases."""
    return [SMOKE, *PRESETS, *task_names(), *benchmark_names()]


def official(name: str, languages: Sequence[str] | None = None) -> list[AbsTask] | None:
    """The tasks of a name, or None where mteb has no such name.

    A benchmark gives its tasks with the splits and subsets it fixes, an aggregated task those it is the mean
    of, `NAME:SPLIT` another split than the published one. `languages` (eng, eng-Latn) keep the subsets that
    hold any of them.

    Raises:
        InputError: a task that is not of text alone, a language mteb does not know or the task does not have.
    """
    base, _, split = name.partition(":")
    with silenced():  # mteb warns of each task when it is made
        tasks = _named(base)
    if tasks is None:
        return None
    _check_text(base, tasks)
    if split:
        tasks = [task.filter_eval_splits([split]) for task in tasks]
    if languages is not None:
        tasks = _speaking(base, tasks, languages)
    return [with_plain_labels(task) for task in tasks]


def parts_of(task: AbsTask) -> list[AbsTask]:
    """The tasks an aggregated task is the mean of, down to plain ones; a plain task is its only part."""
    if not isinstance(task, AbsTaskAggregate):
        return [task]
    return [part for inner in task.tasks for part in parts_of(inner)]


def _named(name: str) -> list[AbsTask] | None:
    if name == SMOKE:
        return mock_tasks()
    if name in PRESETS:
        return [task for entry in PRESETS[name] for task in _entry(entry.name, entry.subsets)]
    if name in task_names():
        found = mteb.get_task(name)
        parts = parts_of(found)
        if found.is_aggregate:
            listed = ", ".join(part.metadata.name for part in parts)
            logger.warning(
                "%s is the mean of %d tasks, each of which is evaluated: %s", name, len(parts), listed
            )
        return [copy.copy(part) for part in parts]
    if name in benchmark_names():
        # copies: mteb hands out the same objects every time, and evaluating changes them
        return [copy.copy(part) for task in mteb.get_benchmark(name).tasks for part in parts_of(task)]
    return None


def _entry(name: str, subsets: Sequence[str] | None) -> list[AbsTask]:
    base, _, split = name.partition(":")
    tasks = _named(base)
    assert tasks is not None, f"the preset's {base} is unknown to this mteb"
    for task in tasks:
        if split:
            task.filter_eval_splits([split])
        if subsets is not None:
            task.filter_languages(None, hf_subsets=subsets)
    return tasks


def _check_text(name: str, tasks: Sequence[AbsTask]) -> None:
    other = [task for task in tasks if set(task.metadata.modalities) != {"text"}]
    if other:
        needed = sorted({modality for task in other for modality in task.metadata.modalities} - {"text"})
        which = "" if len(tasks) == 1 else f"{len(other)} of its {len(tasks)} tasks, "
        which += "" if len(tasks) == 1 else f"such as {other[0].metadata.name}, need "
        needs = " and ".join(needed)
        raise InputError(
            f"{name}: {which or 'it needs '}{needs}, and an embedding model of text reads text only; "
            "choose text tasks"
        )


def _speaking(name: str, tasks: Sequence[AbsTask], languages: Sequence[str]) -> list[AbsTask]:
    kept = []
    for task in tasks:
        try:
            kept.append(task.filter_languages(languages, hf_subsets=task.hf_subsets))
        except ValueError as error:
            if "No subsets" not in str(error):
                raise InputError(
                    f"languages={list(languages)}: {str(error).split(', you can')[0]}; "
                    "give three letters (ISO 639-3) such as eng, deu, or with a script, eng-Latn"
                ) from error
            logger.info("left out: %s has nothing in %s", task.metadata.name, ", ".join(languages))
    if not kept:
        has = sorted({language for task in tasks for language in task.metadata.languages})
        listed = ", ".join(has[:12]) + (" ..." if len(has) > 12 else "")
        raise InputError(f"{name} has nothing in {', '.join(languages)}; it has {listed}")
    return kept
