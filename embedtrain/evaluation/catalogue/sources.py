"""Where the data of a task come from, and what leaderboards and model cards say of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from embedtrain.evaluation.mteb_private import hub_type, is_mock, task_names
from embedtrain.files.scores import TaskFacts

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


class Source(NamedTuple):
    """The place of a task's data, and the official repository of them ("" for one's own and mock data)."""

    how: Literal["own", "mock", "folder", "rows", "hub"]
    repo: str = ""
    revision: str = ""
    folder: Path | None = None


def source_of(task: AbsTask) -> Source:
    """Where this task would read its data: own files, a mirror's folder, rows under its name, or the hub."""
    if hasattr(task, "files"):
        return Source("own")
    if is_mock(task):
        return Source("mock")
    address = getattr(task, "address", task.metadata.dataset)
    repo, revision = address["path"], address["revision"]
    if hasattr(task, "mirror"):
        return Source("folder", repo, revision, task.mirror)
    return Source("rows" if hasattr(task, "rows") else "hub", repo, revision)


def facts_of(task: AbsTask) -> TaskFacts:
    """Type, data set and revision; of official tasks the repository, wherever the data came from."""
    metadata = task.metadata
    official = metadata.name in task_names() and not hasattr(task, "kind")  # local tasks have a kind
    source = getattr(task, "address", metadata.dataset) if official else metadata.dataset
    return TaskFacts(
        type=str(metadata.type),
        hub_type=hub_type(task),
        dataset=str(source["path"]) if official else "local",
        revision=str(metadata.dataset["revision"]),
        subset=",".join(task.hf_subsets),
        official=official,
    )
