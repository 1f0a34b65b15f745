"""Rows of any file or folder a person may have, one at a time, each with the place it came from.

Read are .jsonl, .ndjson, .json (one object a line, or one array), the same with .gz, .parquet, a folder
written by `datasets.save_to_disk`, and a folder of such files. Lines and rows are counted from 1.
"""

from __future__ import annotations

import difflib
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from embedtrain.types import InputError

Row = tuple[str, dict[str, Any]]

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz", ".parquet")
SPLITS = ("train", "validation", "valid", "val", "dev", "test")
BOM = b"\xef\xbb\xbf"


def read_rows(path: str | Path, *, split: str | None = None) -> Iterator[Row]:
    """(where, row) of every row; `where` is "path:line", and "path: row 12" where there are no lines.

    Args:
        path: a file, a folder saved by `datasets.save_to_disk`, or a folder of files.
        split: which part of a folder that holds several; a single file has none.

    Raises:
        InputError: at the call for a missing path or split; on the way for a row that cannot be read.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(_missing(path))
    if path.is_dir():
        return _read_folder(path, split)
    return _read_file(path)


def nearest(name: str, names: list[str]) -> str:
    """' Did you mean ...?' with the closest of `names`, or '' when none is close."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _read_folder(folder: Path, split: str | None) -> Iterator[Row]:
    if (folder / "dataset_dict.json").is_file():
        names = _json_object(folder / "dataset_dict.json").get("splits", [])
        return _read_saved(folder / _one_split(folder, names, split))
    if (folder / "state.json").is_file():
        return _read_saved(folder)
    files = _files(folder)
    if not files:
        raise InputError(
            f"{folder}: no rows here: neither a saved dataset nor files ending in {', '.join(SUFFIXES)}."
        )
    names = sorted({name for name in map(_split_of, files) if name})
    if split is not None or len(names) > 1:
        wanted = _one_split(folder, names or sorted({_stem(file) for file in files}), split)
        files = [file for file in files if wanted in (_split_of(file), _stem(file))]
    return (row for file in files for row in _read_file(file))


def _one_split(folder: Path, names: list[str], split: str | None) -> str:
    """The split to read: the one asked for, or the only one there is."""
    if split in names:
        return str(split)
    listed = ", ".join(names)
    if split is None and len(names) == 1:
        return names[0]
    if split is None:
        raise InputError(f"{folder}: holds the splits {listed}; say which one with split=NAME.")
    raise InputError(f"{folder}: has no split {split!r}, only {listed}.{nearest(split, names)}")


def _files(folder: Path) -> list[Path]:
    """Row files of a folder, sorted; of its subfolders when it has none itself (the hub's own layout)."""
    found = sorted(file for file in folder.iterdir() if file.is_file() and file.name.endswith(SUFFIXES))
    return found or sorted(file for file in folder.glob("*/*") if file.name.endswith(SUFFIXES))


def _stem(file: Path) -> str:
    return file.name[: -len(max((s for s in SUFFIXES if file.name.endswith(s)), key=len))]


def _split_of(file: Path) -> str:
    """'train' of train.jsonl, train-00000-of-00002.parquet and train/part.jsonl; '' when nothing says so."""
    head = _stem(file).split("-")[0].split(".")[0]
    return next((name for name in (head, file.parent.name) if name in SPLITS), "")


def _read_saved(folder: Path) -> Iterator[Row]:
    import datasets  # seconds to import, and only saved datasets need it

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: not a dataset that can be loaded ({error}). Save it again.") from error
    return ((f"{folder}: row {number}", dict(row)) for number, row in enumerate(saved, 1))


def _read_file(path: Path) -> Iterator[Row]:
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: what is inside? Its name must end in {', '.join(SUFFIXES)}.")
    if path.name.endswith(".parquet"):
        return _read_parquet(path)
    opener: Callable[[Path], BinaryIO] = gzip.open if path.name.endswith(".gz") else _open  # type: ignore[assignment]
    if ".json" in path.suffixes[-2:] and _first_byte(path, opener) == b"[":
        return _read_array(path, opener)
    return _read_lines(path, opener)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _read_lines(path: Path, opener: Callable[[Path], BinaryIO]) -> Iterator[Row]:
    for number, line in _lines(path, opener):
        line = line.removeprefix(BOM) if number == 1 else line
        if line.strip():
            where = f"{path}:{number}"
            yield where, _object(line, where)


def _lines(path: Path, opener: Callable[[Path], BinaryIO]) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line), naming the last good line when a compressed file breaks off."""
    number = 0
    try:
        with opener(path) as stream:
            for line in stream:
                number += 1
                yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path}: damaged or cut short after line {number} ({error}). Copy or download it again."
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: byte {error.start + 1} of the line is not UTF-8. Save the file as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not valid JSON ({error.msg} at character {error.pos + 1}): {_short(line)}. "
            "Each line must be one complete JSON object."
        ) from error
    return _checked(row, where)


def _checked(row: object, where: str) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    kind = {list: "an array", str: "a string", type(None): "null"}.get(type(row), f"the value {row!r}")
    raise InputError(f'{where}: expected a JSON object like {{"query": ..., "positive": ...}}, found {kind}.')


def _first_byte(path: Path, opener: Callable[[Path], BinaryIO]) -> bytes:
    for number, line in _lines(path, opener):
        if text := (line.removeprefix(BOM) if number == 1 else line).strip():
            return text[:1]
    return b""


def _read_array(path: Path, opener: Callable[[Path], BinaryIO]) -> Iterator[Row]:
    """Rows of a .json file that is one array; it is read whole."""
    text = b"".join(line for _, line in _lines(path, opener)).removeprefix(BOM)
    try:
        rows = json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start + 1} is not UTF-8. Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg} at character {error.colno}). "
            "The file must hold one array of objects, or one object a line."
        ) from error
    for number, row in enumerate(rows, 1):
        where = f"{path}: row {number}"
        yield where, _checked(row, where)


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa  # half a second to import
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for part in file.iter_batches(batch_size=8192):
                for row in part.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path}: not a readable parquet file after row {number} ({error}). Copy or download it again."
        ) from error


def _json_object(path: Path) -> dict[str, Any]:
    return _object(path.read_bytes(), str(path))


def _missing(path: Path) -> str:
    """What is there instead: the nearest name beside the first part of the path that is missing."""
    part = path
    while not part.parent.exists():
        part = part.parent
    names = sorted(item.name for item in part.parent.iterdir()) if part.parent.is_dir() else []
    close = difflib.get_close_matches(part.name, names, n=1, cutoff=0.5)
    if close:
        return f"{path}: no such file or folder. Did you mean {part.parent / close[0]}?"
    return f"{path}: no such file or folder; {part.parent.resolve()} holds {_listed(names)}."


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "nothing"


def _short(line: bytes, most: int = 60) -> str:
    text = line.decode("utf-8", errors="replace").strip()
    return repr(text if len(text) <= most else text[:most] + "…")
