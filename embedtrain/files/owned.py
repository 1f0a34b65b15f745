"""Which folders are ours to replace or remove; nothing else in the package removes or renames any.

A folder that appears whole bears `.embedtrain`, a mark that lists its files. A folder that grows (a run, a
store of vectors) has a record that only we write, and patterns of the files that may be in it. What holds
anything else is somebody's, and so is whatever a link leads to.

Names beside a folder X, of commands that were killed: `.X.<8 digits>` is an unfinished copy,
`.X[.<8 digits>].replaced` what was there before.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from embedtrain.files.locks import is_alive, is_taken
from embedtrain.types import InputError

log = logging.getLogger(__name__)
MARK = ".embedtrain"
REPLACED = ".replaced"
LARGEST = 1 << 24  # bytes of a mark


def mark(folder: Path, *, whole: bool) -> None:
    """Mark a folder as ours: with the list of its files, or as one that is being written."""
    files = sorted(name for name in entries(folder) if name != MARK) if whole else None
    (folder / MARK).write_text(_said(files), "utf-8")


def expect(folder: Path, name: str) -> None:
    """Let a folder that bears our mark have one more file, which is written next; of any other nothing."""
    files = _listed(folder)
    if files is not None and name not in files:
        path = folder / f".{MARK}.tmp"
        path.write_text(_said(sorted({*files, name})), "utf-8")
        rename(path, folder / MARK)


def _said(files: list[str] | None) -> str:
    """What a mark says; None: the folder is being written."""
    return json.dumps({"written by": "embedtrain", "files": files}) + "\n"


def entries(folder: Path) -> Iterator[str]:
    """The files and links below a folder, by their paths in it; no link is followed."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*files, *links):
            yield Path(place, name).relative_to(folder).as_posix()


def stranger(folder: Path) -> str | None:
    """Why a folder is not one that we wrote whole, as "holds notes.txt, ..."; None if it is."""
    if folder.is_symlink():
        return "is a link"
    files = _listed(folder)
    if files is None:
        return "was not written by embedtrain"
    return unknown(folder, lambda name: name == MARK or name in files or _unfinished(name) in files)


def unknown(folder: Path, ours: Callable[[str], object]) -> str | None:
    """Which file of a folder is not `ours`, in words; None if all are."""
    if folder.is_symlink():
        return "is a link"
    other = next((name for name in sorted(entries(folder)) if not ours(name)), None)
    return None if other is None else f"holds {other}, which embedtrain did not write"


class Place:
    """A folder as it is now: one that is renamed, removed or replaced is found out."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._known = folder, _device_and_number(folder)

    def check(self) -> None:
        """Raise InputError if the folder is not there, or another one is."""
        if _device_and_number(self.folder) != self._known:
            raise gone(self.folder)


def _device_and_number(folder: Path) -> tuple[int, int]:
    try:
        found = folder.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def gone(folder: Path) -> InputError:
    """The error for a run folder that is no longer there: made again, nobody would find what is in it."""
    return InputError(
        f"{folder} was renamed or removed while the run trained, so the run ends and writes nothing more. "
        "Give it its name back and run the same command again, which continues from the last checkpoint"
    )


def refusal(folder: Path, reason: str) -> InputError:
    """The error for a folder that is somebody's."""
    return InputError(f"{folder} {reason}, so it is left alone: choose another folder, or move it away")


def require_own_json(path: Path, *keys: str) -> None:
    """Check that a report that we are to write replaces none but ours.

    Raises:
        InputError: if there is a file that is no JSON object with these keys, or a link.
    """
    if not os.path.lexists(path):
        return
    try:
        found = None if path.stat().st_size > LARGEST else json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if path.is_symlink() or not isinstance(found, dict) or not set(keys) <= found.keys():
        reason = "is a link" if path.is_symlink() else "was not written by embedtrain"
        raise InputError(f"{path} {reason}, so it is left alone: choose another place, or move it away")


def require_own_text(path: Path, begin: str) -> None:
    """Check that a page that we are to write replaces none but ours.

    Raises:
        InputError: if there is a file that does not begin so, or a link.
    """
    if not os.path.lexists(path):
        return
    try:
        with path.open("rb") as file:
            ours = file.read(len(begin.encode())) == begin.encode()
    except OSError:
        ours = False
    if path.is_symlink() or not ours:
        reason = "is a link" if path.is_symlink() else "was not written by embedtrain"
        raise InputError(f"{path} {reason}, so it is left alone: choose another place, or move it away")


def remove_empty(folder: Path) -> None:
    """Remove a folder that holds nothing."""
    with suppress(OSError):
        folder.rmdir()


def remove_tree(folder: Path) -> None:
    """Remove a folder that is known to be ours; of a link nothing. What cannot be removed is left."""
    if not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)


def remove_file(path: Path, within: Path) -> None:
    """Remove a file or link that we wrote, if there is one, and it lies in a folder for good.

    Raises:
        InputError: if a link on the way leads out of the folder.
    """
    if not path.parent.resolve().is_relative_to(within.resolve()):
        raise InputError(f"{path} leads out of {within}, where nothing is removed")
    path.unlink(missing_ok=True)


def rename(path: Path, to: Path) -> None:
    """Give what we wrote another name in its folder; a file of that name is replaced."""
    os.replace(path, to)


def recover(folder: Path) -> None:
    """Bring back what a killed command had set aside, and remove its unfinished copies.

    Neither while the command lives, nor for what does not bear our mark.
    """
    name = re.escape(folder.name)
    copy, aside = (
        re.compile(rf"\.{name}\.[0-9a-f]{{8}}"),
        re.compile(rf"\.{name}(\.[0-9a-f]{{8}})?\.replaced"),
    )
    try:
        beside = [path for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}.")]
    except OSError:
        return
    for path in sorted(beside, reverse=True):  # what was replaced comes before the copy of the same digits
        if path.is_symlink() or not path.is_dir():
            continue
        if aside.fullmatch(path.name) and not _is_in_use(folder, path):
            if stranger(path) is not None:
                continue
            if os.path.lexists(folder):
                remove_tree(path)
            else:
                rename(path, folder)
                log.warning("%s is back: a command was killed while it replaced it", folder)
        elif copy.fullmatch(path.name) and (path / MARK).is_file() and not is_alive(path):
            remove_tree(path)


def _is_in_use(folder: Path, aside: Path) -> bool:
    copy = aside.with_name(aside.name.removesuffix(REPLACED))
    return is_taken(folder) if copy.name == f".{folder.name}" else copy.is_dir() and is_alive(copy)


def _listed(folder: Path) -> frozenset[str] | None:
    path = folder / MARK
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST:
            return None
        return frozenset(json.loads(path.read_text("utf-8"))["files"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _unfinished(name: str) -> str:
    """The file that `atomic_file` was writing when it was killed."""
    place, slash, last = name.rpartition("/")
    found = re.fullmatch(r"\.(.+)\.tmp", last)
    return name if found is None else f"{place}{slash}{found[1]}"
