"""What to evaluate on, by name: local data sets, mteb's tasks, benchmarks, presets.

An official task takes its data from the data root if that holds its repository (`mirror`) or rows under its
name (`official_rows`), else from the hub or its cache. mteb is imported only when a task is built.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.evaluation.catalogue.local.sets import (
    LocalSet,
    choose_set,
    content_hash,
    evaluated_splits,
    local_sets,
    nearest_names,
    used_files,
)
from embedtrain.evaluation.mteb_private import same_random_state
from embedtrain.types import InputError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

logger = logging.getLogger(__name__)

LOCAL = "local"  # the name of all local sets together


def find_tasks(
    names: Sequence[str], data_root: str | Path | None = None, languages: Sequence[str] | None = None
) -> list[AbsTask]:
    """The tasks of these names, each once; rows are read when a task is evaluated.

    "local" is every local set, "sts/mine" or "mine" one of them; other names are mteb's tasks and benchmarks
    and the presets smoke, dev, quick and full. `NAME:SPLIT` chooses a split; without one a local set has the
    first there is of test, dev, val, validation, or, of a classification that has train alone, a seeded fifth
    of each label. `languages` keep the parts of official tasks that are in any of them.

    Raises:
        InputError: no such task (with the nearest names), "local" without a data root, one task with two
        sets of languages.
    """
    if not names:
        raise InputError("no task given; give task names, or tasks=[local] with data_root=DIR")
    root = None if data_root is None else Path(data_root).expanduser()
    sets = [] if root is None else local_sets(root)
    own: dict[str, list[str | None]] = {}  # splits by path of a local set, None for the set's usual one
    official: dict[str, AbsTask] = {}
    order: dict[str, None] = {}  # keys of both, as asked for
    with same_random_state():
        for name in dict.fromkeys(names):
            base, _, split = name.partition(":")
            if base == LOCAL:
                further: dict[str, list[str | None]] = {item.path: [None] for item in _evaluable(root, sets)}
            elif _is_local(base, sets):
                path = choose_set(base, sets, root or Path()).path
                further = {path: [*own.get(path, []), split or None]}
            else:
                order |= dict.fromkeys(_merge(official, _official(name, sets, languages)))
                continue
            own |= further
            order |= dict.fromkeys(further)
        by_path = {item.path: item for item in sets}
        tasks = [
            _local_task(by_path[key], own[key], sets) if key in own else _placed(official[key], root, sets)
            for key in order
        ]
    _check_names(tasks)
    return tasks


def load(task: AbsTask) -> None:
    """Loads a task's data.

    Raises:
        InputError: a malformed local row, a split the data do not have, or official data that are neither on
        this machine nor reachable.
    """
    name = task.metadata.name
    try:
        task.load_data()
    except InputError:
        raise
    except Exception as error:
        cure = (
            f" Where there is internet, `embedtrain-evaluate prefetch=true 'tasks=[{name}]' data_root=DIR` "
            "fills a folder that data_root=DIR serves it from"
        )
        raise InputError(
            f"task {name}: its data {task.metadata.dataset['path']!r} cannot be loaded "
            f"({type(error).__name__}: {error}).{'' if hasattr(task, 'files') else cure}"
        ) from error
    nested = task.metadata.is_multilingual and not getattr(task, "parallel_subsets", False)
    for part in (task.dataset or {}).values() if nested else (task.dataset or {},):
        there = part.get("default", part)
        if missing := set(task.eval_splits) - set(there):
            raise InputError(
                f"task {name} has no split {', '.join(missing)}; it has {', '.join(sorted(there))}"
            )


def _is_local(name: str, sets: Sequence[LocalSet]) -> bool:
    """Whether a name means a local set. An official task that the set can serve goes first."""
    if not any(name in (item.path, item.name) for item in sets):
        return False
    if "/" in name:
        return True
    from embedtrain.evaluation.catalogue.official.rows import rows_for
    from embedtrain.evaluation.catalogue.official.tasks import official

    found = official(name)
    return found is None or len(found) > 1 or rows_for(found[0], sets) is None


def _official(name: str, sets: Iterable[LocalSet], languages: Sequence[str] | None) -> list[AbsTask]:
    from embedtrain.evaluation.catalogue.official.tasks import official, official_names

    found = official(name, languages)
    if found is None:
        own = [known for item in sets for known in (item.path, item.name)]
        base = name.partition(":")[0]
        local = "" if sets else ". One of your own needs data_root=DIR, the folder that holds it"
        raise InputError(f"no task {name!r}{nearest_names(base, [*own, *official_names()])}{local}")
    if len(found) == 1 and (newer := found[0].superseded_by):
        logger.warning("%s is superseded by %s, says mteb; it is evaluated as asked", name, newer)
    return found


def _merge(official: dict[str, AbsTask], further: Iterable[AbsTask]) -> list[str]:
    """Adds tasks, and gives their names; one that is there already gets the further splits."""
    names = []
    for task in further:
        before = official.setdefault(task.metadata.name, task)
        if sorted(before.hf_subsets) != sorted(task.hf_subsets):
            raise InputError(
                f"{task.metadata.name} is asked for twice, with the subsets {', '.join(before.hf_subsets)} "
                "and "
                f"{', '.join(task.hf_subsets)}; a task has one score a run, so evaluate them in two"
            )
        before.filter_eval_splits(list(dict.fromkeys([*before.eval_splits, *task.eval_splits])))
        names.append(task.metadata.name)
    return names


def _placed(task: AbsTask, root: Path | None, sets: Sequence[LocalSet]) -> AbsTask:
    """The task as the data root serves it; as it is where the root has nothing of it."""
    if root is None:
        return task
    from embedtrain.evaluation.catalogue.official.mirror import folder_of, from_folder
    from embedtrain.evaluation.catalogue.official.rows import from_rows, rows_for

    address = task.metadata.dataset
    if folder := folder_of(root, address["path"], address["revision"]):
        return from_folder(task, folder)
    if rows := rows_for(task, sets):
        logger.info("%s is served from %s", task.metadata.name, rows.item.path)
        return from_rows(task, rows)
    return task


def _evaluable(root: Path | None, sets: Sequence[LocalSet]) -> list[LocalSet]:
    """The sets that have something to evaluate; the others are named in a warning."""
    if root is None:
        raise InputError("tasks=[local] needs data_root=DIR, the folder of the local data sets")
    if not sets:
        raise InputError(
            f"data_root {root} has no data set such as sts/mine/test.jsonl or retrieval/mine/corpus.jsonl"
        )
    kept = []
    for item in sets:
        try:
            evaluated_splits(item, None)
        except InputError as error:
            logger.warning("left out: %s", error)
        else:
            kept.append(item)
    if not kept:
        raise InputError(
            f"{root}: none of the data sets can be evaluated: {', '.join(item.path for item in sets)}"
        )
    return kept


def _local_task(item: LocalSet, splits: Sequence[str | None], sets: Sequence[LocalSet]) -> AbsTask:
    from embedtrain.evaluation.catalogue.local.tasks import build

    chosen = [name for split in splits for name in evaluated_splits(item, None if split is None else [split])]
    evaluated = list(dict.fromkeys(chosen))
    files = used_files(item, evaluated)
    unique = Counter(other.name for other in sets)[item.name] == 1
    name = item.name if unique else f"{item.kind}_{item.name}"
    return build(item.kind, name, files, evaluated, content_hash(files))


def _check_names(tasks: Sequence[AbsTask]) -> None:
    counted = Counter(task.metadata.name for task in tasks)
    if twice := [name for name, count in counted.items() if count > 1]:
        raise InputError(
            f"{twice[0]} is both an official task and a local set here; name one of them, or rename the set"
        )
