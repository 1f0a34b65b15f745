"""Rows of the Hugging Face hub, whole or as a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedtrain.files.records import Raw
from embedtrain.files.rows import DOCUMENTS, SUFFIXES
from embedtrain.types import InputError

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def is_hub_name(source: str | Path) -> bool:
    """Whether it can only be a dataset of the hub; what exists on disk wins."""
    path, name = Path(source).expanduser(), str(source)
    known = path.exists() or name.endswith((*SUFFIXES, *DOCUMENTS)) or path.parent.exists()
    return HUB_NAME.fullmatch(name) is not None and not known


def hub_rows(name: str, split: str | None = None) -> Iterator[Raw]:
    """All rows of "owner/name" or "owner/name:config", fetched first.

    Raises:
        InputError: when they cannot be loaded.
    """
    return as_rows(name, load(name, split))


def as_rows(name: str, loaded: Any, first: int = 0) -> Iterator[Raw]:  # noqa: ANN401  the library has no types
    """Rows from number `first` (from 0) on of what `load` gave."""
    return (Raw(f"{name}: row {number}", number, dict(row)) for number, row in enumerate(loaded, first + 1))


def load(name: str, split: str | None = None, **options: bool) -> Any:  # noqa: ANN401
    """The `datasets` object of a split, "train" when None.

    Raises:
        InputError: when it cannot be loaded.
    """
    import datasets  # seconds to import, and only the hub needs it

    repository, _, config = name.partition(":")
    split = split or "train"
    try:
        return datasets.load_dataset(repository, config or None, split=split, **options)
    except Exception as error:  # the library raises a dozen kinds for "not there" and "no network"
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InputError(
            f"{name}: no such local file or folder, and as a hub dataset (split {split!r}) it cannot be "
            f"loaded ({reason}). "
            "Without network give a local file, or a folder written by datasets.save_to_disk."
        ) from error
