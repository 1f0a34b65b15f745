"""Files that somebody handed over: bounded, and what their parser throws is one line that names the file."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from embedtrain.types import InputError

LARGEST = 256 << 20  # bytes of a file that is read whole
VALUES = 1_000_000  # of a YAML file, aliases counted as often as they are named
DEPTH = 64  # of mappings and lists in each other


@contextmanager
def reading(path: object, cure: str) -> Iterator[None]:
    """Inside, a parser may throw anything: what comes out is an InputError that names the file.

    Args:
        path: of the file or folder.
        cure: a sentence, what to do about it.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # parsers of many libraries; RecursionError and MemoryError too
        raise InputError(f"{path} cannot be read ({reason_of(error)}). {cure}") from error


def reason_of(error: BaseException) -> str:
    """The first line of an error, in the length of one line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__


def cure_of(error: BaseException) -> str:
    """What to do about an error of the disk or the machine."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
        return "This disk has no locks: choose a folder on another one by output_root, output or out"
    if number == errno.ENAMETOOLONG:
        return "Give a shorter name"
    if isinstance(error, MemoryError):
        return "Memory is not enough: give smaller batches or a smaller model"
    return "Choose a file or folder that you may read and write"


def read_text(path: Path, cure: str, *, largest: int = LARGEST) -> str:
    """The UTF-8 text of a file. Raises InputError naming it, also when it is too large."""
    with reading(path, cure):
        if path.stat().st_size > largest:
            raise InputError(f"{path} has {path.stat().st_size:,} bytes, more than {largest:,}. {cure}")
        return path.read_text("utf-8")


def read_json(path: Path, cure: str) -> Any:  # noqa: ANN401 - whatever the file says
    """The value of a JSON file. Raises InputError naming the file."""
    text = read_text(path, cure)
    with reading(path, cure):
        return json.loads(text)


def read_yaml(path: Path, cure: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:  # noqa: ANN401 - whatever the file says
    """The value of a YAML file, whose aliases do not unfold to more than `VALUES`.

    Raises:
        InputError: naming the file.
    """
    text = read_text(path, cure, largest=LARGEST >> 4)
    with reading(path, cure):
        value = yaml.load(text, loader)
        if _unfolded(value, {}, 0) > VALUES:
            raise InputError(f"{path} unfolds to more than {VALUES:,} values by its aliases. {cure}")
    return value


def _unfolded(value: object, known: dict[int, int], depth: int) -> int:
    """How many values there are when each alias is a copy."""
    if not isinstance(value, Mapping | list):
        return 1
    if depth > DEPTH:
        raise RecursionError
    if id(value) not in known:
        inner = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_unfolded(item, known, depth + 1) for item in inner)
    return known[id(value)]
