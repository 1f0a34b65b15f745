"""Mined rows as a file that embedtrain trains on: as many as there were, in their order."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtrain.data.read.sources import Example
from embedtrain.files import owned
from embedtrain.files.atomic import write_bytes
from embedtrain.mining.mine import Mined
from embedtrain.mining.problem import Problem
from embedtrain.types import InputError

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
BEFORE, AFTER = "Instruct: ", "\nQuery: "  # of the prompt that an instruction becomes when rows are read
STATISTICS = ("out", "rows_in", "rows_out", "teacher")  # some keys of the file beside mined rows
DIGITS = 6  # of scores: float16 vectors know no more


def check_output(path: Path, sources: Iterable[str | None], *, overwrite: bool) -> None:
    """Check that mined rows may be written to a file.

    Raises:
        InputError: if its name does not say its format, rows are read from it, or it is there: one that was
            not mined, or is not to be overwritten.
    """
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"out={path}: its name must end in {', '.join(SUFFIXES)}")
    if any(source is not None and Path(source).resolve() == path.resolve() for source in sources):
        raise InputError(f"out={path} is what rows are read from: choose another out")
    beside = statistics_path(path)
    owned.require_own_json(beside, *STATISTICS)
    if path.is_symlink() or (path.exists() and not _is_mined(path, beside)):
        reason = "is a link" if path.is_symlink() else f"was not mined (no {beside.name} beside it says so)"
        raise InputError(f"{path} {reason}, so it is left alone: choose another out, or move it away")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already: choose another out, or pass overwrite=true")


def _is_mined(path: Path, statistics: Path) -> bool:
    if not path.is_file() or not statistics.is_file():
        return False
    return Path(str(json.loads(statistics.read_text("utf-8"))["out"])).name == path.name


def statistics_path(out: Path) -> Path:
    """Where the statistics of an output file are: mined.statistics.json beside mined.jsonl.gz."""
    return out.with_name(f"{out.name.partition('.')[0]}.statistics.json")


def bad_rows_folder(out: Path) -> Path:
    """Where the rows that could not be used are reported: mined.bad_rows beside mined.jsonl.gz."""
    return out.with_name(f"{out.name.partition('.')[0]}.bad_rows")


def mined_rows(
    examples: Sequence[Example], mined: Sequence[tuple[Problem, Mined]], *, keep_negatives: bool
) -> Iterator[dict[str, Any]]:
    """Each row with its negatives and the scores of positives and negatives, in the order of `examples`.

    Args:
        examples: all rows.
        mined: problems that together have all rows, and their negatives.
        keep_negatives: whether a row's own negatives come first.
    """
    places = {
        int(row): (part, int(query))
        for part, (problem, _) in enumerate(mined)
        for row, query in zip(problem.rows, problem.query_of, strict=True)
    }
    for row, example in enumerate(examples):
        part, query = places[row]
        problem, negatives = mined[part]
        yield _row(example, problem, negatives, query, keep_negatives)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows, all of them or nothing. Raises InputError as `write_bytes`."""
    if path.name.endswith(".parquet"):
        write_bytes(path, _parquet(rows))
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        # No clock in the header: the same rows are the same bytes.
        write_bytes(path, gzip.compress(text, mtime=0) if path.name.endswith(".gz") else text)


def _row(example: Example, problem: Problem, mined: Mined, query: int, keep: bool) -> dict[str, Any]:
    labelled = zip(problem.labelled(query).tolist(), mined.labelled[query].tolist(), strict=True)
    score_of = {problem.documents[number]: score for number, score in labelled}
    numbers = mined.negatives[query]
    some = numbers >= 0
    texts = [problem.documents[number] for number in numbers[some].tolist()]
    own = list(example.negatives) if keep else []
    known = [score_of[text] for text in (*example.positives, *own)]
    row: dict[str, Any] = {
        "query": example.query,
        "positives": list(example.positives),
        "negatives": [*own, *texts],
        "teacher_scores": [round(score, DIGITS) for score in (*known, *mined.scores[query][some].tolist())],
        "task": example.task,
    }
    if example.prompts.query is not None:
        row["instruction"] = _instruction(example)
    return row


def _instruction(example: Example) -> str:
    """The field that gives the row its prompt when it is read."""
    prompt = example.prompts.query or ""
    if not prompt:
        return ""
    if not (prompt.startswith(BEFORE) and prompt.endswith(AFTER)):
        raise InputError(f"{example.where}: its prompt {prompt[:60]!r} is no instruction and fits in no row")
    return prompt[len(BEFORE) : -len(AFTER)]


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    text, texts = pyarrow.string(), pyarrow.list_(pyarrow.string())
    types = {"query": text, "positives": texts, "negatives": texts}
    types |= {"teacher_scores": pyarrow.list_(pyarrow.float64()), "task": text, "instruction": text}
    schema = [(name, kind) for name, kind in types.items() if any(name in row for row in rows)]
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(schema))
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()
