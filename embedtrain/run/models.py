"""What `model=...` on a command line means: a run folder, a model folder, or a hub name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from embedtrain.files.owned import REPLACED, recover
from embedtrain.files.run_folder import RunFolder
from embedtrain.files.run_record import read_record
from embedtrain.types import InputError


def model_folder(name: str) -> str:
    """The folder or hub name to load: a run folder's `model/`, anything else as it is.

    Raises:
        InputError: if the run has not finished.
    """
    folder = Path(name)
    recover(folder)
    if not folder.exists() and folder.with_name(f".{folder.name}{REPLACED}").is_dir():
        with suppress(InputError):  # of somebody else, or of a run that another command replaces now
            run = RunFolder(folder.parent, folder.name)
            run.lock()
            run.release()
    config = folder / "config.yaml"
    begun = config.exists() and any((folder / name).exists() for name in ("checkpoints", "stages"))
    if begun or read_record(config) is not None:
        if not (folder / "model").exists():
            raise InputError(f"{name} is a run that has not finished: run its command again to finish it")
        return str(folder / "model")
    return name


def run_folder(name: str) -> Path:
    """The run that a `model=` belongs to, where its scores are: itself, or the folder around its `model/`."""
    folder = Path(name)
    return folder.parent if folder.name == "model" else folder


def source_of(name: str) -> str:
    """The whole path of the run or folder that `model=` names, or the hub name."""
    folder = run_folder(name)
    return str(folder.resolve()) if folder.exists() else name


def name_of(name: str) -> str:
    """A short name for score rows: the run's or the folder's."""
    path = Path(name)
    return path.parent.name if path.name == "model" and path.parent.name else path.name or "model"
