"""Rows of any file or folder a person may have, one at a time, each with the place it came from.

Read are .jsonl, .ndjson, .json (one object a line, one array, or one object that holds the rows), .csv and
.tsv, the same with .gz, .bz2, .xz or .zst, .parquet, a folder written by `datasets.save_to_disk`, and a
folder of such files. Lines and rows are counted from 1. A file of plain text or Markdown is one row.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from embedtrain.files.delimited import delimited_rows
from embedtrain.files.json_objects import object_rows
from embedtrain.files.parquet import parquet_rows
from embedtrain.files.reading import reading
from embedtrain.files.records import (
    MAX_LINE,
    Raw,
    array_rows,
    document_rows,
    is_texts,
    lines,
    parse_line,
    parsed,
)
from embedtrain.files.unpacked import PACKED, without_packing
from embedtrain.types import InputError

log = logging.getLogger(__name__)
Row = tuple[str, dict[str, Any]]

LINES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SUFFIXES = (*(f"{name}{packed}" for name in LINES for packed in ("", *PACKED)), ".parquet")
DOCUMENTS = tuple(f"{name}{packed}" for name in (".txt", ".md", ".markdown") for packed in ("", *PACKED))
ENDINGS = ", ".join((*SUFFIXES, ".txt", ".md"))
NO_ROWS = {
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "config.json",
}  # beside them
SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$")  # of a part of a split, as the hub names it
SPLITS = ("train", "validation", "valid", "val", "dev", "test")


def read_rows(path: str | Path, *, split: str | None = None) -> Iterator[Row]:
    """(where, row) of every row; `where` is "path:line", and "path: row 12" where there are no lines.

    Args:
        path: a file, a folder saved by `datasets.save_to_disk`, or a folder of files.
        split: which part of a folder that holds several; a single file has none.

    Raises:
        InputError: at the call for a missing path or split; on the way for a row that cannot be read.
    """
    return ((raw.where, parsed(raw)) for raw in raw_rows(path, split=split))


def raw_rows(path: str | Path, *, split: str | None = None, max_line: int = MAX_LINE) -> Iterator[Raw]:
    """The same rows unread, so that one that cannot be read does not stop those after it.

    Raises:
        InputError: at the call for a missing path or split.
    """
    path = Path(path).expanduser()
    if (path / "dataset_dict.json").is_file():
        names = parse_line((path / "dataset_dict.json").read_bytes(), str(path)).get("splits", [])
        return _saved_rows(path / _one_split(path, names, split))
    if (path / "state.json").is_file():
        return _saved_rows(path)
    return (raw for file in row_files(path, split=split) for raw in file_rows(file, max_line=max_line))


def file_rows(path: Path, *, max_line: int = MAX_LINE) -> Iterator[Raw]:
    """The rows of a file in their order; its name says what is inside."""
    if path.name.endswith(".parquet"):
        return parquet_rows(path)
    if path.name.endswith(DOCUMENTS):
        return document_rows(path, max_bytes=max_line)
    if without_packing(path.name).endswith((".csv", ".tsv")):
        return delimited_rows(path, max_line=max_line)
    if ".json" in path.suffixes[-2:]:
        start = list(islice(lines(path, max_line=max_line), 2))
        if start and _is_array(*start):
            return array_rows(path, max_line=max_line)
        if start and (rows := object_rows(path, *start)) is not None:
            return rows
    return lines(path, max_line=max_line)


def _is_array(first: Raw, second: Raw | None = None) -> bool:
    """Whether a file is one array of rows, and not lines that are each a list of texts."""
    seen = first.value if isinstance(first.value, bytes) else first.begin
    if not seen.lstrip().startswith(b"["):
        return False
    try:
        row = json.loads(seen)
    except (ValueError, RecursionError):
        return True  # it goes on in other lines
    return not (is_texts(row) and (isinstance(row[0], str) or second is not None))


def row_files(path: str | Path, *, split: str | None = None) -> list[Path]:
    """The files that hold the rows: the one at `path`, or those of a folder and split in the order of names.

    Raises:
        InputError: for a missing path, a folder without rows, a split that is missing or not said.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(_missing(path))
    if not path.is_dir():
        if not path.name.endswith((*SUFFIXES, *DOCUMENTS)):
            raise InputError(f"{path}: what is inside? Its name must end in {ENDINGS}.")
        return [path]
    files = _files(path)
    _warn_of_unread(path, frozenset(files))
    if not files and split is None:  # a README beside rows is none of them
        files = sorted(file for file in path.rglob("*") if _is_document(file.relative_to(path), file))
        if files:
            return files
    if not files:
        raise InputError(f"{path}: no rows here: neither a saved dataset nor files ending in {ENDINGS}.")
    names = sorted({name for name in map(_split_of, files) if name})
    if split is not None or len(names) > 1:
        wanted = _one_split(path, names or sorted({stem(file) for file in files}), split)
        files = [file for file in files if wanted in (_split_of(file), stem(file))]
    return files


def split_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files in a folder by the name of their split.

    It is test for test.jsonl, for test-00000-of-00001.parquet, and for a folder test/ of `save_to_disk`.

    Raises:
        InputError: for two files of one name that are no parts of one.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if _has_rows(path) or (path / "state.json").is_file():
            found.setdefault(SHARD.sub("", stem(path) if path.is_file() else path.name), []).append(path)
    for paths in found.values():
        if len(paths) > 1 and not all(SHARD.search(stem(path)) for path in paths):
            raise InputError(
                f"{folder}: {paths[0].name} and {paths[1].name} are one split twice; keep one of them"
            )
    return {name: tuple(paths) for name, paths in found.items()}


def nearest(name: str, names: list[str]) -> str:
    """' Did you mean ...?' with the closest of `names`, or '' when none is close."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _one_split(folder: Path, names: list[str], split: str | None) -> str:
    """The split to read: the one asked for, or the only one there is."""
    if split in names:
        return str(split)
    listed = ", ".join(names)
    if split is None and (len(names) == 1 or "train" in names):
        return "train" if "train" in names else names[0]
    if split is None:
        raise InputError(f"{folder}: holds the splits {listed}; say which one with split=NAME.")
    raise InputError(f"{folder}: has no split {split!r}, only {listed}.{nearest(split, names)}")


def _files(folder: Path) -> list[Path]:
    """Row files of a folder, sorted; of its subfolders when it has none itself (the hub's own layouts)."""
    found: list[Path] = []
    for depth in ("*", "*/*", "*/*/*"):
        found = found or sorted(file for file in folder.glob(depth) if file.is_file() and _has_rows(file))
    return found


@lru_cache(maxsize=1024)  # a folder is read more than once
def _warn_of_unread(folder: Path, files: frozenset[Path]) -> None:
    below = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    other = next((file for file in below if files and file not in files and _has_rows(file)), None)
    if other is not None:
        log.warning(
            "%s: rows are read from %s and other files beside it alone, not from %s. Give that folder as a "
            "data set of its own if it is one",
            folder,
            min(files),
            other,
        )


def _has_rows(file: Path) -> bool:
    return file.name.endswith(SUFFIXES) and file.name not in NO_ROWS


def _is_document(name: Path, file: Path) -> bool:
    """Whether a file below a folder is one of its texts; what lies in hidden folders is not."""
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and name.name.endswith(DOCUMENTS) and file.is_file()


def stem(file: Path) -> str:
    """The name of a file of rows without its suffix: train of train.jsonl.gz."""
    return file.name.removesuffix(max((s for s in SUFFIXES if file.name.endswith(s)), key=len, default=""))


def _split_of(file: Path) -> str:
    """'train' of train.jsonl, train-00000-of-00002.parquet and train/part.jsonl; '' when nothing says so."""
    head = stem(file).split("-")[0].split(".")[0]
    return next((name for name in (head, file.parent.name) if name in SPLITS), "")


def _saved_rows(folder: Path) -> Iterator[Raw]:
    import datasets  # seconds to import, and only saved datasets need it

    with reading(folder, "Save the data set again"):
        saved = datasets.load_from_disk(str(folder))
    if not isinstance(saved, datasets.Dataset):
        raise InputError(f"{folder} is not one split of a data set. Save it again")
    return (Raw(f"{folder}: row {number}", number, dict(row)) for number, row in enumerate(saved, 1))


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
