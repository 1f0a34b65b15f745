"""Official tasks fed from folders: mteb's own loader and transforms run, only the address is another.

A root holds `<org>/<name>@<revision>` for every dataset repository (what `prefetch` writes), or, without a
revision, `<org>/<name>`; the revision of such a folder is then what its owner believes it to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedtrain.evaluation.catalogue.official.statistics import warn_of_differences
from embedtrain.evaluation.mteb_private import Untyped

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


class Mirrored:
    """Put before an official task's class: after loading, the data are compared with mteb's statistics."""

    address: Mapping[str, Any]  # the official one
    mirror: Path  # the folder its data are read from

    def load_data(self, num_proc: int | None = None, **settings: Untyped) -> None:
        """Loads as mteb does."""
        super().load_data(num_proc=num_proc, **settings)  # type: ignore[misc]
        warn_of_differences(self)  # type: ignore[arg-type]


def folder_of(root: Path, repo: str, revision: str) -> Path | None:
    """Where the root holds this repository, at this revision or with none named; None if it does not."""
    for folder in (root / f"{repo}@{revision}", root / repo):
        if folder.is_dir() and any(folder.iterdir()):
            return folder
    return None


def from_folder(task: AbsTask, folder: Path) -> AbsTask:
    """The task with its data read from `folder`; name and revision stay the official ones."""
    # a path that is not absolute might look like the name of a repository
    address = {**task.metadata.dataset, "path": str(folder.resolve())}
    metadata = task.metadata.model_copy(update={"dataset": address})
    return derived(task, Mirrored, metadata=metadata, address=task.metadata.dataset, mirror=folder)


def derived(task: AbsTask, *mixins: type, **attributes: Untyped) -> AbsTask:
    """The task as an object of a subclass of its class, `mixins` first.

    `attributes` are the class's, because mteb forgets metadata of the object when it unloads data.
    """
    made = type(type(task).__name__, (*mixins, type(task)), dict(attributes))
    new: AbsTask = object.__new__(made)
    vars(new).update(vars(task))
    return new
