"""What `embedtrain-pairs` does: documents read, pairs made and checked, rows and statistics written."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embedtrain.console import Progress, log
from embedtrain.content_ids import content_id
from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.writing import bad_rows_folder, check_output, statistics_path, write_rows
from embedtrain.devices import device_of
from embedtrain.files import owned
from embedtrain.files.atomic import append, write_bytes
from embedtrain.files.locks import taken
from embedtrain.files.measured.lines import line_of, read_lines
from embedtrain.making.consistency import ranks_of
from embedtrain.making.documents import Document, words_of
from embedtrain.making.maker import Made, Maker, Pair, made
from embedtrain.making.reading import read_documents
from embedtrain.mining.pipeline import TextVectors
from embedtrain.mining.teacher import Teacher, load_teacher
from embedtrain.run.models import model_folder
from embedtrain.run.results.next_line import training_line
from embedtrain.settings.compose import effective
from embedtrain.settings.tools import PairsSettings
from embedtrain.types import InputError
from embedtrain.vectors.store import VectorStore

STATISTICS = ("out", "documents", "pairs", "examples")  # some keys of the file beside the rows
EXAMPLES = 10


class MadePairs(NamedTuple):
    """What was written."""

    rows: Path
    statistics: Path
    lines: list[str]  # what to show of it


class _Kept(NamedTuple):
    """A line of the file that a slow maker leaves until its rows are written."""

    key: int  # of settings, seed and document
    queries: tuple[str, ...]
    positives: tuple[str, ...]


def make_pairs(settings: PairsSettings) -> MadePairs:
    """Make pairs of documents and write them. A slow maker that was stopped keeps what it made.

    Raises:
        InputError: for what the user can mend; no rows have been written then.
    """
    sources = _sources(settings.source)
    out = Path(settings.out)
    check_output(out, sources, STATISTICS, overwrite=settings.overwrite)
    device_of(settings.device)
    with taken(out):
        check_output(out, sources, STATISTICS, overwrite=settings.overwrite)
        return _made(settings, sources, out)


def _made(settings: PairsSettings, sources: Sequence[str], out: Path) -> MadePairs:
    begun = time.monotonic()

    def bad() -> BadRows:
        return BadRows(settings.on_bad_row, bad_rows_folder(out))

    if settings.overwrite:
        bad().forget()
    policies = list[BadRows]()

    def next_bad() -> BadRows:
        policies.append(bad())
        return policies[-1]

    documents = read_documents(sources, next_bad, settings.columns)
    left_out = sum(policy.left_out for policy in policies)
    bad().summary()
    # Before the pairs, which may take hours, are made.
    checks = settings.check_with
    teacher = None if checks is None else load_teacher(model_folder(checks), device=settings.device)
    maker: Maker = settings.maker.build(device=settings.device)
    maker.learn(documents)
    log(f"making pairs of {len(documents)} documents")
    with Progress(steady=True) as progress:
        every = list(_pairs(settings, maker, documents, out, progress))
    found = [(one.document, pair) for one in every for pair in one.pairs]
    stays = np.ones(len(found), bool)
    if teacher is not None and found:
        stays = _consistent(settings, teacher, [pair for _, pair in found], out)
    rows = [
        {"query": pair.query, "positive": pair.positive, "task": maker.name}
        for (_, pair), stay in zip(found, stays.tolist(), strict=True)
        if stay
    ]
    if not rows:
        raise InputError(
            f"maker={maker.name} makes no pair of these {len(documents)} documents: give longer ones, or use "
            "another maker"
        )
    summary = {
        **_summary(settings, out, every, [pair for _, pair in found], stays),
        "bad_rows": left_out,
        "seconds": round(time.monotonic() - begun, 3),
        "settings": effective(settings),
    }
    beside = statistics_path(out)
    # First: they say that the rows are ours, should this process be killed between the two.
    write_bytes(beside, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode(errors="replace"))
    write_rows(out, rows)
    owned.remove_file(_kept_file(out), out.parent)
    lines = [*_readable(summary), f"rows: {out}   statistics: {beside}"]
    if left_out:
        lines.append(f"bad rows: {left_out}, in {bad_rows_folder(out)}")
    return MadePairs(out, beside, [*lines, training_line(out)])


def _sources(data: Any) -> list[str]:  # noqa: ANN401 - whatever a setting holds
    every = data if isinstance(data, list) else [data]
    if not every or not all(isinstance(source, str) and source for source in every):
        raise InputError(f"source must be a file or folder of documents, or a list of them, got {data!r}")
    return every


def _pairs(
    settings: PairsSettings, maker: Maker, documents: Sequence[Document], out: Path, progress: Progress
) -> Iterator[Made]:
    """The pairs of each document; those of a slow maker are on the disk before the next document."""

    def done(count: int) -> None:
        progress("documents", count, len(documents))

    if not getattr(maker, "slow", False):
        yield from made(maker, documents, settings.seed, done)
        return
    file = _kept_file(out)
    kept = {line.key: line for line in read_lines(file, _Kept)}
    if kept:
        log(f"{file} has the pairs of {len(kept)} documents")
        _trim(file)
    yield from made(_Keeping(maker, settings, file, kept), documents, settings.seed, done)


class _Keeping:
    """A maker whose pairs are appended to a file, and taken from there where it has them."""

    def __init__(self, maker: Maker, settings: PairsSettings, file: Path, kept: dict[int, _Kept]) -> None:
        self.name, self._maker, self._file, self._kept = maker.name, maker, file, kept
        self._of = f"{settings.seed} {json.dumps(settings.maker.effective(), sort_keys=True)}"

    def learn(self, documents: Sequence[Document]) -> None:
        """It has."""

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """As `Maker`."""
        key = content_id(f"{self._of} {document.title}\n{document.text}")
        line = self._kept.get(key)
        if line is None:
            pairs = self._maker.pairs(document, draw)
            line = _Kept(key, tuple(pair.query for pair in pairs), tuple(pair.positive for pair in pairs))
            append(self._file, line_of(line).encode(errors="backslashreplace"), flushed=True)
        return [Pair(*both) for both in zip(line.queries, line.positives, strict=True)]


def _kept_file(out: Path) -> Path:
    return out.with_name(f"{out.name.partition('.')[0]}.unfinished.jsonl")


def _trim(file: Path) -> None:
    """Write whole lines anew where the last one was cut off, so that the next one is a line of its own."""
    text = file.read_bytes()
    if not text.endswith(b"\n"):
        write_bytes(file, text[: text.rfind(b"\n") + 1])


def _consistent(
    settings: PairsSettings, teacher: Teacher, pairs: Sequence[Pair], out: Path
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which pairs a model finds again."""
    folder = out.parent / "vectors" if settings.store is None else Path(settings.store)
    store = VectorStore(folder, identity=teacher.identity, width=teacher.width, dtype="float16")
    texts = list(dict.fromkeys(pair.positive for pair in pairs))
    queries = TextVectors(store, teacher, [pair.query for pair in pairs], "query")
    documents = TextVectors(store, teacher, texts, "document")
    log(f"checking {len(pairs)} pairs with {settings.check_with}")
    with Progress(steady=True) as progress:
        total, done = len(pairs) + len(texts), 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress("encoding", done, total)

        for each in (queries, documents):
            each.fill(progress=tick)
    return ranks_of(pairs, queries.open(), documents.open(), texts) < settings.check_rank


def _summary(
    settings: PairsSettings,
    out: Path,
    every: Sequence[Made],
    pairs: Sequence[Pair],
    stays: np.ndarray[Any, Any],
) -> dict[str, Any]:
    """What was counted, and some pairs to look at."""
    taken = [pair for pair, stay in zip(pairs, stays.tolist(), strict=True) if stay]
    gone = [pair for pair, stay in zip(pairs, stays.tolist(), strict=True) if not stay]
    draw = random.Random(settings.seed)
    return {
        "out": str(out),
        "documents": len(every),
        "documents_with_pairs": sum(bool(one.pairs) for one in every),
        "pairs": len(taken),
        "left_out_equal_or_empty": sum(one.left_out for one in every),
        "left_out_by_check": len(gone),
        "distinct_queries": len({pair.query for pair in taken}),
        "words_of_queries": _sizes([pair.query for pair in taken]),
        "words_of_positives": _sizes([pair.positive for pair in taken]),
        "examples": _some(taken, draw),
        "examples_left_out": _some(gone, draw),
    }


def _some(pairs: Sequence[Pair], draw: random.Random) -> list[dict[str, str]]:
    return [pair._asdict() for pair in draw.sample(list(pairs), min(EXAMPLES, len(pairs)))]


def _sizes(texts: Sequence[str]) -> dict[str, float]:
    """Mean, and the sizes that a tenth, half and nine tenths do not exceed."""
    counts = [len(words_of(text)) for text in texts]
    if not counts:
        return {}
    low, middle, high = np.quantile(counts, [0.1, 0.5, 0.9])
    return {
        "mean": round(float(np.mean(counts)), 2),
        "p10": float(low),
        "p50": float(middle),
        "p90": float(high),
    }


def _readable(summary: dict[str, Any]) -> list[str]:
    queries, positives = summary["words_of_queries"], summary["words_of_positives"]
    lines = [
        f"{summary['pairs']} pairs of {summary['documents_with_pairs']} of {summary['documents']} documents",
        f"words: {queries['mean']} a query, {positives['mean']} a positive",
    ]
    if summary["left_out_equal_or_empty"]:
        lines.append(f"left out, equal or empty: {summary['left_out_equal_or_empty']}")
    if summary["left_out_by_check"]:
        lines.append(f"left out, not found again: {summary['left_out_by_check']}")
    return [
        *lines,
        *(f"  {_short(one['query'])}  ->  {_short(one['positive'])}" for one in summary["examples"][:3]),
    ]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
