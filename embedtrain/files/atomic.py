"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from sqlite3 import SQLITE_FULL
from typing import IO

from safetensors import SafetensorError

from embedtrain.files import owned
from embedtrain.files.locks import alive, naming
from embedtrain.files.reading import cure_of, reason_of
from embedtrain.types import InputError

AGAIN = "free some space and run the same command again, which keeps what was finished"
FULL = (errno.ENOSPC, errno.EDQUOT)
UNFINISHED = ".tmp"  # ends the names of files that are being written, which begin with a dot


@contextmanager
def atomic_file(path: Path, *, mark: str = "") -> Iterator[IO[bytes]]:
    """Gives an empty file, open to write and read bytes, that takes the name `path` when all went well.

    On any error, an interrupt too, what was written is removed and what was at `path` is untouched. It is
    flushed to the disk before it takes the name. Folders above `path` are made.

    Args:
        path: what to write.
        mark: of this writer, where several may write `path` at once; a killed one then leaves a file of its
            own, else one that the next writer replaces.

    Raises:
        OSError: as the disk refused it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}{mark}{UNFINISHED}")
    if beside.is_symlink():
        beside.unlink()  # what it leads to is not ours
    try:
        with naming(path):
            with beside.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
            sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def append(path: Path, content: bytes, *, flushed: bool) -> None:
    """Add content at the end of a file, which is made; an error of the disk leaves the file as it was.

    Args:
        path: of the file.
        content: what is added.
        flushed: whether it is on the disk when this returns.
    """
    with naming(path), path.open("ab", buffering=0) as file:
        size, rest = file.tell(), memoryview(content)
        try:
            while rest:
                rest = rest[file.write(rest) :]
            if flushed:
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise


def write_text(path: Path, text: str) -> None:
    r"""Let `path` hold that text in UTF-8; see `atomic_file`. Half a character is written as `\ud800`."""
    with atomic_file(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Let `path` hold that content, whichever processes write it at once.

    Raises:
        InputError: when the disk is full or the place cannot be written.
    """
    try:
        with atomic_file(path, mark=f".{uuid.uuid4().hex}") as file:
            file.write(content)
    except OSError as error:
        reason = "the disk is full" if is_disk_full(error) else str(error.strerror)
        raise InputError(
            f"cannot write {path}: {reason}. Free some space, or choose another folder"
        ) from error


@contextmanager
def atomic_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside `folder` to write into, which takes its name when all went well.

    On any error, an interrupt too, the temporary folder is removed and what was at `folder` is untouched.
    Everything is flushed to the disk before it takes the name, so a power cut leaves no half folder. It
    bears our mark; only what bears it, and holds nothing else, is overwritten.

    Raises:
        InputError: when `folder` exists and has content (unless `overwrite`), or content of somebody else;
            when the disk is full, or the place cannot be written.
    """
    owned.recover(folder)
    check_free(folder, overwrite=overwrite)
    beside = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        beside.mkdir(parents=True)
        with naming(folder), alive(beside):
            owned.mark(beside, whole=False)
            yield beside
            owned.mark(beside, whole=True)
            _share(beside)
            _flush(beside)
            _rename(beside, folder)
    except BaseException as error:
        owned.remove_tree(beside)
        reason = _disk_reason(error)
        if reason is not None:
            raise InputError(f"cannot save to {folder}: {reason}") from error
        raise


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Check that a folder may be written: it is absent, empty, or ours and to be overwritten.

    Raises:
        InputError: saying what is there; `overwrite` is advised for what is ours alone.
    """
    if not folder.is_symlink() and not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file: choose another folder")
    if not folder.is_symlink() and not any(folder.iterdir()):
        return
    if (reason := owned.stranger(folder)) is not None:
        raise owned.refusal(folder, reason)
    if not overwrite:
        raise InputError(f"{folder} exists already: choose another folder, or pass overwrite=true")


def _rename(beside: Path, folder: Path) -> None:
    """Give `beside` the name `folder`, whose old content goes only after the new is in place."""
    if not folder.is_dir():
        os.replace(beside, folder)
    else:
        aside = beside.with_name(f"{beside.name}{owned.REPLACED}")
        os.replace(folder, aside)
        try:
            os.replace(beside, folder)
        except BaseException:
            os.replace(aside, folder)
            raise
        owned.remove_tree(aside)
    sync(folder.parent)


def _share(folder: Path) -> None:
    """Give each file the mode of any new file here: safetensors makes its own readable by the owner only."""
    mode = folder.stat().st_mode & 0o666  # a new folder's mode has the umask in it
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk when it returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(handle)
    finally:
        os.close(handle)


def _disk_reason(error: BaseException) -> str | None:
    """What the user must mend when the disk refused; None for every other error."""
    if is_disk_full(error):
        return "the disk is full; nothing was left behind. Free some space, or choose another disk"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return f"{error.strerror} ({error.filename}). Choose a folder you may write to"
    return None


def plain_error(error: BaseException, place: object) -> InputError:
    """What a user can do about an error of the disk or the machine, with the file, or else the place."""
    where = getattr(error, "filename", None) or place
    if is_disk_full(error):
        return InputError(f"{where}: the disk is full; {AGAIN}")
    return InputError(f"{where}: {reason_of(error)}. {cure_of(error)}")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether a full disk is the cause of an error, or its cause's: libraries wrap what they were told."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        # safetensors writes in Rust and says "No space left on device (os error 28)" in an error of its own.
        if isinstance(error, SafetensorError) and any(f"os error {code}" in str(error) for code in FULL):
            return True
        if getattr(error, "sqlite_errorcode", None) == SQLITE_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
