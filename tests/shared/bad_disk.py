"""A disk that refuses: everything below a folder finds it full, read-only or without locks."""

import builtins
import errno
import fcntl
import io
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

# What the system is asked for, and the error that it gives.
FAULTS = {
    "read-only": ("open", errno.EROFS),
    "no such right": ("open", errno.EACCES),
    "full as it is written": ("write", errno.ENOSPC),
    "broken as it is written": ("write", errno.EIO),
    "full as it is flushed": ("fsync", errno.ENOSPC),
    "broken as it is renamed": ("replace", errno.EIO),
    "without locks": ("lock", errno.ENOLCK),
    "without such locks": ("lock", errno.EOPNOTSUPP),
}


class _Full(io.FileIO):
    """A file of which half of the first write finds place."""

    number = errno.ENOSPC

    def write(self, content):
        super().write(bytes(content)[: len(content) // 2])
        raise OSError(self.number, os.strerror(self.number))


class _Disk:
    """The functions of a disk that refuses what lies below a folder, and in `refused` what was asked for."""

    def __init__(self, folder, number):
        self.root, self.number, self.refused = os.path.realpath(folder), number, []
        self.open, self.os_open = io.open, os.open

    def error(self, *path):
        return OSError(self.number, os.strerror(self.number), *path)

    def is_below(self, path):
        inside = isinstance(path, str | os.PathLike) and os.path.realpath(path).startswith(self.root)
        if inside:
            self.refused.append(str(path))
        return inside

    def of_names(self, honest):
        def called(path, *given, **named):
            if self.is_below(path):
                raise self.error(str(path))
            return honest(path, *given, **named)

        return called

    def of_open_files(self, *_):
        """Of whichever file: its number says nothing of its place, nor does the error."""
        self.refused.append("an open file")
        raise self.error()

    def no_open(self, path, mode="r", *given, **named):
        if _writes(mode) and self.is_below(path):
            raise self.error(str(path))
        return self.open(path, mode, *given, **named)

    def no_os_open(self, path, flags, *given, **named):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and self.is_below(path):
            raise self.error(str(path))
        return self.os_open(path, flags, *given, **named)

    def half_open(self, path, mode="r", buffering=-1, *given, **named):
        if not _writes(mode) or not self.is_below(path):
            return self.open(path, mode, buffering, *given, **named)
        raw = _Full(path, mode.replace("b", "").replace("t", ""))
        raw.number = self.number
        if buffering == 0:
            return raw
        file = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace")


def _writes(mode):
    return isinstance(mode, str) and bool(set("wax+") & set(mode))


@contextmanager
def refusing(folder, call, number):
    """Inside, `call` fails with this error below the folder; gives the list of what was refused."""
    disk = _Disk(folder, number)
    names = [(os, name, disk.of_names(getattr(os, name))) for name in ("mkdir", "symlink", "replace")]
    patches = {
        "open": [
            *((place, "open", disk.no_open) for place in (io, builtins)),
            (os, "open", disk.no_os_open),
            *names,
        ],
        "write": [(io, "open", disk.half_open), (builtins, "open", disk.half_open)],
        "fsync": [(os, "fsync", disk.of_open_files)],
        "replace": names[2:],
        "lock": [(fcntl, name, disk.of_open_files) for name in ("flock", "lockf")],
    }[call]
    with ExitStack() as stack:
        for place, name, value in patches:
            stack.enter_context(mock.patch.object(place, name, value))
        yield disk.refused


def content(folder):
    """Each file below a folder with its bytes; locks are left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }
