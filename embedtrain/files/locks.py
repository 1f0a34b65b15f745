"""One process, or one thread of it, at a time; whether another one still lives."""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from embedtrain.types import InputError

BUSY = (errno.EACCES, errno.EAGAIN)
_held: set[tuple[int, str]] = set()  # (process, lock): POSIX lets a process have its own lock twice
_claiming = threading.Lock()  # of `_held`
_working = threading.RLock()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside, an error of the disk names the file: calls on open files do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def only_thread(what: str) -> Iterator[None]:
    """Inside, no other thread of this process does such work: both would draw from the same random numbers.

    Raises:
        InputError: naming `what`, if another thread does.
    """
    if not _working.acquire(blocking=False):
        raise InputError(
            "another thread of this process trains or measures, and both would draw from the same "
            f"random numbers: begin {what} when that has ended, or in a process of its own"
        )
    try:
        yield
    finally:
        _working.release()


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
        with naming(path):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def lock_of(path: Path) -> Path:
    """The file that whoever writes `path` holds: beside it, since `path` itself may be replaced."""
    if path.name in ("", ".."):  # of "." or "..", which have another name
        path = Path(os.path.realpath(path))
    if not path.name:
        raise InputError(f"{path} is no folder to write: name one below it")
    return path.with_name(f".{path.name}.lock")


class Lock:
    """The lock of `path`, held until `close` or until this process ends in whatever way; see `take`."""

    def __init__(self, path: Path) -> None:
        self._name = (os.getpid(), os.path.realpath(path))
        with _claiming:
            if self._name in _held:
                raise BlockingIOError(errno.EAGAIN, "another thread has it", str(path))
            self._file = path.open("ab")
            try:
                with naming(path):
                    _take(self._file)
            except OSError as error:
                self._file.close()
                if error.errno in BUSY:
                    raise BlockingIOError(errno.EAGAIN, "another process has it", str(path)) from error
                raise
            _held.add(self._name)
        # With a run that nobody has any more, the file closes by itself and the name would stay.
        self._forget = weakref.finalize(self, _held.discard, self._name)

    def close(self) -> None:
        """Let it go."""
        self._file.close()
        self._forget()


def take(path: Path) -> Lock:
    """The lock of `path`.

    A POSIX lock: no forked worker of a killed command holds it.

    Raises:
        InputError: if another command, or another thread of this process, has it.
        OSError: if the disk has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return Lock(lock_of(path))
    except BlockingIOError as error:
        raise InputError(
            f"another command is working on {path}: wait for its end, stop it, or choose another name"
        ) from error


def _take(file: IO[bytes]) -> None:
    import fcntl

    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def taken(path: Path) -> Iterator[None]:
    """Inside, no other command works on `path`; see `take`."""
    lock = take(path)
    try:
        yield
    finally:
        lock.close()


def is_taken(path: Path) -> bool:
    """Whether a command works on `path`."""
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
