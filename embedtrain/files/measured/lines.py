"""Files of one NamedTuple a line, or of one in all, as JSON: checked as they are read.

Fields that a reader does not know are left out, so a file of a later version can be read.
"""

from __future__ import annotations

import json
import logging
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from embedtrain.files.atomic import write_text
from embedtrain.files.reading import read_json, read_text, reading
from embedtrain.types import InputError

log = logging.getLogger(__name__)
T = TypeVar("T")
CURE = "Remove it and run the command again that wrote it"


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """The values of a file, in file order; an absent file has none.

    A last line without its newline is what a killed writer leaves: it is left out and logged.

    Raises:
        InputError: a line is no JSON object, lacks a field, or a field has the wrong type; names the line.
    """
    return [value_of(_parsed(line, where), kind, where) for where, line in placed_lines(path)]


def placed_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place, line) of each whole line that is not blank; an absent file has none."""
    if not path.exists():
        return
    lines = read_text(path, CURE).split("\n")
    if lines[-1]:
        log.warning("%s: the last line was cut off while it was written; it is left out", path)
    for number, line in enumerate(lines[:-1], start=1):
        if line.strip():
            yield f"{path.name}:{number}", line


def write_lines(path: Path, values: Iterable[tuple[Any, ...]]) -> None:
    """Replaces the file by these values at once."""
    write_text(path, "".join(map(line_of, values)))


def line_of(value: tuple[Any, ...]) -> str:
    """The line of a value, as `read_lines` reads it."""
    return f"{json.dumps(plain(value), ensure_ascii=False)}\n"


def replace_lines(path: Path, kind: type[T], values: Sequence[T], key: Callable[[T], Hashable]) -> None:
    """Adds values at the end of a file, whose lines of the same key go."""
    new = {key(value) for value in values}
    write_lines(path, [*(old for old in read_lines(path, kind) if key(old) not in new), *values])  # type: ignore[list-item]


def read_value(path: Path, kind: type[T]) -> T | None:
    """The value of a file that holds one; None where there is no file.

    Raises:
        InputError: it is not what `write_value` writes; names the file.
    """
    return value_of(read_json(path, CURE), kind, path.name) if path.exists() else None


def write_value(path: Path, value: tuple[Any, ...]) -> None:
    """Replaces the file by this value at once."""
    write_text(path, json.dumps(plain(value), ensure_ascii=False, indent=1) + "\n")


def plain(value: Any) -> Any:  # noqa: ANN401 - NamedTuples of anything that JSON knows
    """Dicts and lists of a NamedTuple and of those in it."""
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def value_of(row: object, kind: type[T], where: str) -> T:
    """A NamedTuple of a JSON object.

    Raises:
        InputError: not an object, or a field is not there or of the wrong type.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: expected a JSON object, got {type(row).__name__}. {CURE}")
    hints, defaults = _hints(cast(Hashable, kind)), getattr(kind, "_field_defaults", {})
    if missing := [name for name in hints if name not in row and name not in defaults]:
        raise InputError(f"{where}: no {', '.join(missing)}; there are {', '.join(map(str, row))}. {CURE}")
    values = {}
    for name, hint in hints.items():
        if name in row:  # most values are plain: thousands of lines need no more
            value = row[name]
            values[name] = value if type(value) is hint else _checked(value, hint, f"{where}: {name}")
    return kind(**values)


@cache
def _hints(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a type
    return get_type_hints(kind)


def _checked(value: Any, hint: Any, where: str) -> Any:  # noqa: ANN401 - by the hint
    """The value as its hint says. Raises InputError."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _checked(value, next(one for one in inner if one is not type(None)), where)
    if origin is tuple and isinstance(value, list):
        if all(type(part) is inner[0] for part in value):
            return tuple(value)
        return tuple(_checked(part, inner[0], where) for part in value)
    if hasattr(hint, "_fields") and isinstance(value, Mapping):
        return value_of(value, hint, where)
    if origin is Literal and value in inner:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise InputError(f"{where} has the wrong type, got {repr(value)[:60]}. {CURE}")


def _parsed(line: str, where: str) -> object:
    with reading(where, "Remove the line"):
        return json.loads(line)
