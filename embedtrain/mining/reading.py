"""What is mined, as it stands in files: rows, a corpus, a retrieval set; every row is used or reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.fields import number_of, text_of
from embedtrain.data.read.ids import same_id
from embedtrain.data.read.sources import Example, read_examples
from embedtrain.files.records import parsed
from embedtrain.files.rows import raw_rows
from embedtrain.types import InputError

log = logging.getLogger(__name__)
Value = TypeVar("Value")
Row = dict[str, Any]


class Part(NamedTuple):
    """What became of the rows of one input: rows = used + left_out + without_text."""

    rows: int
    used: int
    left_out: int  # reported as bad rows
    without_text: int = 0  # documents that are empty: nobody's negative, and nothing to repair


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


def read_retrieval(folder: Path, bad: Bad = BadRows, *, corpus: str | Path | None = None) -> Reading:
    """A retrieval set in the local layout: an example for each query with a relevant document.

    Args:
        folder: of corpus, queries and qrels.
        bad: gives the policy for the bad rows of an input.
        corpus: a file whose documents are mined instead of the set's own.

    Raises:
        InputError: for a missing file; when no document is relevant; unless the policy lets them pass, for a
            row that is damaged, has the id of another or judges a query or document that is not there.
    """
    documents, queries = ById(_document), ById(_query)
    relevant: dict[str, list[str]] = {}

    def judged(where: str, row: Row) -> None:
        query, document = _id(where, row, "query_id"), _id(where, row, "corpus_id")
        if query not in queries.values or document not in documents.values:
            missing = f"query {query!r}" if query not in queries.values else f"document {document!r}"
            raise InputError(f"{where}: judges the {missing}, which is not there. Repair or drop the row.")
        if number_of(where, "score", row.get("score", 1)) > 0 and documents.values[document]:
            relevant.setdefault(query, []).append(documents.values[document])

    parts = {}
    for name, form in (("corpus", documents), ("queries", queries), ("qrels", judged)):
        parts[name] = _read(_file(folder, name), form, bad)[1]
    if not relevant:
        raise InputError(
            f"{folder}: qrels call no document relevant, so there are no positives to mine beside."
        )
    examples = []
    for name, texts in relevant.items():
        where, text = queries.places[name], queries.values[name]
        examples.append(Example(text, tuple(dict.fromkeys(texts)), (), None, folder.name, where))
    own, parts["corpus"] = _filled(list(documents.values.values()), parts["corpus"], folder)
    return _with_corpus(Reading(examples, own, parts), corpus, bad)


def read_corpus(path: str | Path, bad: Bad = BadRows) -> tuple[list[str], Part]:
    """The texts of a corpus file, {"text", ["title"]}, title first; each once, empty ones left out.

    Raises:
        InputError: naming a row without a text, unless the policy lets it pass; when there is no document.
    """
    texts, part = _filled(*_read(path, _document, bad), path)
    if not texts:
        raise InputError(f'{path}: holds no documents. Give a file with rows like {{"text": ...}}.')
    return texts, part


class ById:
    """The value of each row by its "id", which no other row may have; as `form` of `_read`."""

    def __init__(self, form: Callable[[str, Row], str]) -> None:
        self.form = form
        self.values: dict[str, str] = {}
        self.places: dict[str, str] = {}

    def __call__(self, where: str, row: Row) -> None:
        """Take the row down. Raises InputError as `form`, and for an id that is taken or none."""
        name, value = _id(where, row, "id"), self.form(where, row)
        if name in self.values:
            raise same_id(where, repr(name), self.places[name])
        self.values[name], self.places[name] = value, where


def _read(path: str | Path, form: Callable[[str, Row], Value], bad: Bad) -> tuple[list[Value], Part]:
    """What `form` makes of each row; one for which it raises InputError is a bad row."""
    bad_rows, found = bad(), []
    for raw in raw_rows(path, max_line=bad_rows.max_line):
        try:
            found.append(form(raw.where, parsed(raw)))
        except InputError as error:
            bad_rows.add(raw, error)
    return found, Part(len(found) + bad_rows.left_out, len(found), bad_rows.left_out)


def _with_corpus(reading: Reading, corpus: str | Path | None, bad: Bad) -> Reading:
    if corpus is None:
        return reading
    texts, part = read_corpus(corpus, bad)
    return reading._replace(corpus=texts, parts={**reading.parts, "corpus": part})


def _file(folder: Path, name: str) -> Path:
    return next(iter(sorted(folder.glob(f"{name}.*"))), folder / f"{name}.jsonl")


def _id(where: str, row: Row, field: str) -> str:
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where}: needs {field!r}, a text or whole number; the row has {_names(row)}.")
    return str(value)


def _document(where: str, row: Row) -> str:
    title = "" if row.get("title") is None else text_of(where, "title", row["title"], may_be_empty=True)
    return f"{title} {_text(where, row, may_be_empty=True)}".strip()


def _query(where: str, row: Row) -> str:
    return _text(where, row, may_be_empty=False)


def _text(where: str, row: Row, *, may_be_empty: bool) -> str:
    if row.get("text") is None:
        raise InputError(f"{where}: needs a 'text'; the row has {_names(row)}.")
    return text_of(where, "text", row["text"], may_be_empty=may_be_empty)


def _names(row: Row) -> str:
    return ", ".join(repr(name[:60]) for name in list(row)[:20]) if row else "nothing"


def _filled(texts: Sequence[str], part: Part, place: object) -> tuple[list[str], Part]:
    """Each text once, without empty ones: they are nobody's negative."""
    empty = texts.count("")
    if empty:
        log.info("%s: left out %d documents without text", place, empty)
    distinct = [text for text in dict.fromkeys(texts) if text]
    return distinct, part._replace(used=part.used - empty, without_text=empty)
