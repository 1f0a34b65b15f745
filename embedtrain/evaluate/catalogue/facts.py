"""What leaderboards and model cards say of tasks. Importing this module imports mteb."""

from __future__ import annotations

from mteb.abstasks import AbsTask

from embedtrain.evaluate.mteb_private import hub_type, task_names
from embedtrain.files.scores import TaskFacts


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
