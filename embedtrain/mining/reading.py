"""Rows, a corpus or a retrieval set to mine, read from files; every row is used or reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from embedtrain.data.read.bad_rows import BadRows, usable
from embedtrain.data.read.fields import read_fields
from embedtrain.data.read.ranking import of_split, part_rows, ranking_files
from embedtrain.data.read.retrieval import DOCUMENT, QUERY, ById, Judgements
from embedtrain.data.read.sources import Example, read_examples
from embedtrain.types import InputError

log = logging.getLogger(__name__)
Value = TypeVar("Value")


class Part(NamedTuple):
    """How the rows of one input were used: rows = used + left_out + without_text."""

    rows: int
    used: int
    left_out: int  # reported as bad rows
    without_text: int = (
        0  # documents that are empty, judgements of texts that are not there: nothing to repair
    )


class Reading(NamedTuple):
    """Everything that was read."""

    examples: list[Example]
    corpus: list[str] | None  # distinct documents; None for those of the examples
    parts: dict[str, Part]  # by what it is: rows, corpus, queries, qrels

    @property
    def left_out(self) -> int:
        """Rows that are reported instead of used."""
        return sum(part.left_out for part in self.parts.values())


Bad = Callable[[], BadRows]  # one for each input, all with the same report


def read_source(
    source: str | Path,
    bad: Bad = BadRows,
    *,
    corpus: str | Path | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Reading:
    """Rows as of training, and the corpus where one is given.

    Args:
        source: rows as `read_examples` takes them.
        split: as there.
        columns: as there.
        bad: gives the policy for the bad rows of an input.
        corpus: what `read_corpus` takes; None for the documents of the rows.

    Raises:
        InputError: as `read_examples` and `read_corpus`.
    """
    bad_rows = bad()
    examples = read_examples(source, split=split, columns=columns, bad_rows=bad_rows)
    for example in examples:
        if not example.positives:
            raise InputError(f"{example.where}: is a text alone, and mining needs a query and its positive")
    rows = Part(len(examples) + bad_rows.left_out, len(examples), bad_rows.left_out)
    return _with_corpus(Reading(examples, None, {"rows": rows}), corpus, bad)


def read_retrieval(
    folder: Path, bad: Bad = BadRows, *, corpus: str | Path | None = None, split: str | None = None
) -> Reading:
    """A retrieval set (see `ranking`): an example for each query with a relevant document.

    Args:
        folder: of corpus, queries and qrels.
        bad: gives the policy for the bad rows of an input.
        corpus: a file whose documents are mined instead of the set's own.
        split: of judgements that have several, "train" when None.

    Raises:
        InputError: for a missing file; when no document is relevant; unless the policy lets them pass, for a
            row that is damaged, has the id of another or judges a query or document that is not there.
    """
    corpus_rows, queries = ById(DOCUMENT), ById(QUERY)
    judgements = Judgements(queries, corpus_rows)
    parts: dict[str, Part] = {}
    files = of_split(ranking_files(folder) if folder.is_dir() else {}, split, ("train",), folder)
    for name, rows in (("corpus", corpus_rows), ("queries", queries), ("qrels", judgements)):
        for path in files.get(name) or (_file(folder, name),):
            part = _read(path, rows.add, bad, name)[1]
            parts[name] = Part(*map(sum, zip(part, parts[name], strict=True))) if name in parts else part
    judgements.warn_of_missing()
    missing, judged = judgements.missing, parts["qrels"]
    parts["qrels"] = judged._replace(used=judged.used - missing, without_text=missing)
    documents = {name: _document(row.fields) for name, row in corpus_rows.rows.items()}
    examples = []
    for name, scores in judgements.scores.items():
        positives = [documents[one] for one, score in scores.items() if score > 0 and documents.get(one)]
        if positives:
            where, fields = queries.rows[name]
            positive = tuple(dict.fromkeys(positives))
            examples.append(Example(fields["text"], positive, (), None, folder.name, where))
    if not examples:
        raise InputError(
            f"{folder}: qrels call no document relevant, so there are no positives to mine beside."
        )
    own, parts["corpus"] = _filled(list(documents.values()), parts["corpus"], folder)
    return _with_corpus(Reading(examples, own, parts), corpus, bad)


def read_corpus(path: str | Path, bad: Bad = BadRows) -> tuple[list[str], Part]:
    """The texts of a corpus file, {"text", ["title"]}, title first; each once, empty ones left out.

    Raises:
        InputError: naming a row without a text, unless the policy lets it pass; when there is no document.
    """
    found, part = _read(path, lambda where, row: _document(read_fields(where, row, DOCUMENT)), bad)
    texts, part = _filled(found, part, path)
    if not texts:
        raise InputError(f'{path}: holds no documents. Give a file with rows like {{"text": ...}}.')
    return texts, part


def _read(
    path: str | Path, read: Callable[[str, dict[str, Any]], Value], bad: Bad, part: str = "corpus"
) -> tuple[list[Value], Part]:
    bad_rows = bad()
    raws = part_rows(Path(path).expanduser(), part, max_line=bad_rows.max_line)
    found = list(usable(raws, read, bad_rows.add))
    return found, Part(len(found) + bad_rows.left_out, len(found), bad_rows.left_out)


def _with_corpus(reading: Reading, corpus: str | Path | None, bad: Bad) -> Reading:
    if corpus is None:
        return reading
    texts, part = read_corpus(corpus, bad)
    return reading._replace(corpus=texts, parts={**reading.parts, "corpus": part})


def _file(folder: Path, name: str) -> Path:
    return next(iter(sorted(folder.glob(f"{name}.*"))), folder / f"{name}.jsonl")


def _document(fields: Mapping[str, str]) -> str:
    """Title and text in one; it may be empty."""
    return f"{fields['title']} {fields['text']}".strip()


def _filled(texts: Sequence[str], part: Part, place: object) -> tuple[list[str], Part]:
    """Each text once, without empty ones: they are nobody's negative."""
    empty = texts.count("")
    if empty:
        log.info("%s: left out %d documents without text", place, empty)
    distinct = [text for text in dict.fromkeys(texts) if text]
    return distinct, part._replace(used=part.used - empty, without_text=empty)
