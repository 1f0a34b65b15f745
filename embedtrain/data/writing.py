"""Training rows to a file, with statistics beside it that say whose it is."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtrain.files import owned
from embedtrain.files.atomic import write_bytes
from embedtrain.types import InputError

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def check_output(
    path: Path, sources: Iterable[str | None], statistics: Sequence[str], *, overwrite: bool
) -> None:
    """Check that rows may be written to a file.

    Args:
        path: the file.
        sources: what rows are made of; None for nothing.
        statistics: some keys of the file beside rows that the same command wrote.
        overwrite: whether these may be replaced.

    Raises:
        InputError: if its name does not say its format, rows are made of it, or it is there: one that
            the command did not write, or is not to be overwritten.
    """
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"out={path}: its name must end in {', '.join(SUFFIXES)}")
    if any(source is not None and Path(source).resolve() == path.resolve() for source in sources):
        raise InputError(f"out={path} is what rows are read from: choose another out")
    beside = statistics_path(path)
    owned.require_own_json(beside, *statistics)
    if path.is_symlink() or (path.exists() and not _is_ours(path, beside)):
        reason = (
            "is a link"
            if path.is_symlink()
            else f"was not made by this command (no {beside.name} beside it says so)"
        )
        raise InputError(f"{path} {reason}, so it is left alone: choose another out, or move it away")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already: choose another out, or pass overwrite=true")


def _is_ours(path: Path, statistics: Path) -> bool:
    if not path.is_file() or not statistics.is_file():
        return False
    return Path(str(json.loads(statistics.read_text("utf-8"))["out"])).name == path.name


def statistics_path(out: Path) -> Path:
    """Where the statistics of an output file are: mined.statistics.json beside mined.jsonl.gz."""
    return out.with_name(f"{out.name.partition('.')[0]}.statistics.json")


def bad_rows_folder(out: Path) -> Path:
    """Where the rows that could not be used are reported: mined.bad_rows beside mined.jsonl.gz."""
    return out.with_name(f"{out.name.partition('.')[0]}.bad_rows")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows, all of them or nothing. Raises InputError as `write_bytes`."""
    if path.name.endswith(".parquet"):
        write_bytes(path, _parquet(rows))
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        # No clock in the header: the same rows are the same bytes.
        write_bytes(path, gzip.compress(text, mtime=0) if path.name.endswith(".gz") else text)


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    text, texts = pyarrow.string(), pyarrow.list_(pyarrow.string())
    types = {"query": text, "positive": text, "positives": texts, "negatives": texts}
    types |= {"teacher_scores": pyarrow.list_(pyarrow.float64()), "task": text, "instruction": text}
    schema = [(name, kind) for name, kind in types.items() if any(name in row for row in rows)]
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(schema))
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()
