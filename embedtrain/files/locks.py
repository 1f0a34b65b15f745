"""One process at a time; whether another one still lives."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from embedtrain.types import InputError

BUSY = (errno.EACCES, errno.EAGAIN)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file, made when it is not there, so that no other process of this machine does.

    A process that dies lets go. Where the system has no such locks (Windows), nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def lock_of(path: Path) -> Path:
    """The file that whoever writes `path` holds: beside it, since `path` itself may be replaced."""
    return path.with_name(f".{path.name}.lock")


def take(path: Path) -> IO[bytes]:
    """The lock of `path`, open until it is closed or this process ends in whatever way.

    A POSIX lock: no forked worker of a killed command holds it.

    Raises:
        InputError: if another command has it.
        OSError: if the disk has no locks.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    file = lock_of(path).open("ab")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno in BUSY:
            raise InputError(
                f"another command is working on {path}: wait for its end, stop it, or choose another name"
            ) from error
        raise
    return file


@contextmanager
def taken(path: Path) -> Iterator[None]:
    """Inside, no other command works on `path`; see `take`."""
    file = take(path)
    try:
        yield
    finally:
        file.close()


def is_taken(path: Path) -> bool:
    """Whether a command works on `path`. Never ask for a lock that this process has: that lets it go."""
    if not lock_of(path).exists():
        return False
    try:
        take(path).close()
    except (InputError, OSError):
        return True
    return False


@contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Inside, `is_alive` answers yes in every process of this machine; where the disk can tell."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def is_alive(folder: Path) -> bool:
    """Whether the process that writes a folder still runs; yes where the disk cannot tell."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
