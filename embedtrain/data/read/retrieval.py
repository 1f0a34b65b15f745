"""Rows of retrieval sets in the local layout, for mining and evaluation: corpus, queries, judgements."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from embedtrain.data.read.fields import (
    TEXT_NAMES,
    Field,
    Form,
    Ids,
    any_text,
    identifier,
    read_fields,
    text,
    whole_number,
)
from embedtrain.data.read.triplets import Triplet, triplet_of
from embedtrain.types import InputError

logger = logging.getLogger(__name__)

DOCUMENT: Form = {"title": Field(any_text, ""), "text": Field(any_text, "", may_be_missing=False)}
QUERY: Form = {"text": Field(text), "instruction": Field(any_text, "")}
_ID: Form = {"id": Field(identifier)}
_JUDGEMENT: Form = {
    "query_id": Field(identifier),
    "corpus_id": Field(identifier),
    "score": Field(whole_number),
}


IDS = (
    "id",
    "_id",
    "docid",
    "doc_id",
    "pid",
    "qid",
    "query_id",
    "query-id",
    "corpus_id",
    "corpus-id",
    "column_1",
)
TEXTS = (*TEXT_NAMES, "query", "question", "column_2")
QUERY_IDS = ("query_id", "query-id", "qid", "column_1")
CORPUS_IDS = ("corpus_id", "corpus-id", "docid", "doc_id", "pid", "did", "column_2")
SCORES = ("score", "relevance", "rel", "label", "column_3")


def _first(row: Mapping[str, Any], names: Sequence[str], ours: str) -> dict[str, Any]:
    """{ours: the value under the first of the names}; {} where the row has none of them."""
    return next(({ours: row[name]} for name in names if name in row), {})


def _judgement(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A judgement under our names: of BEIR, of TREC (query, 0, document, score), without a score 1."""
    if {"query_id", "corpus_id", "score"} <= row.keys():
        return row
    if "column_1" in row:
        cells = list(row.values())
        cells = str(cells[0]).split() if len(cells) == 1 else cells
        cells = [cells[0], *cells[2:]] if len(cells) == 4 else cells
        return dict(zip(("query_id", "corpus_id", "score"), [*cells, 1][:3], strict=False))
    found = _first(row, QUERY_IDS, "query_id") | _first(row, CORPUS_IDS, "corpus_id")
    return {**row, "score": 1, **found, **_first(row, SCORES, "score")} if len(found) == 2 else row


class Placed(NamedTuple):
    """The fields of a row, and where it is."""

    where: str
    fields: dict[str, str]


class ById:
    """Rows of a form by their "id", which no other row may have."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.rows: dict[str, Placed] = {}
        self._ids = Ids()

    def add(self, where: str, row: Mapping[str, Any]) -> None:
        """Note a row. Raises InputError for a field that is wrong, and for an id that is taken or missing."""
        if "id" not in row or "text" not in row:
            row = {**row, **_first(row, IDS, "id"), **_first(row, TEXTS, "text")}
        name = read_fields(where, row, _ID)["id"]
        fields = read_fields(where, row, self.form)
        self._ids.add(where, repr(name))
        self.rows[name] = Placed(where, fields)


class Judgements:
    """Which documents are relevant for which queries: 0 is not relevant."""

    def __init__(self, queries: ById, corpus: ById) -> None:
        self._queries, self._corpus = queries, corpus
        self.scores: dict[str, dict[str, int]] = {}  # query -> document -> score
        self.missing, self.first_missing = 0, ""

    def add(self, where: str, row: Mapping[str, Any]) -> None:
        """Note a row; an unknown query or document is counted. Raises InputError for a wrong field."""
        if (triplet := triplet_of(where, row)) is not None:
            judged = self.known(where, triplet)
            if judged is not None:
                scores = self.scores.setdefault(judged.query, {})
                scores |= dict.fromkeys(judged.negatives, 0) | scores | dict.fromkeys(judged.positives, 1)
        else:
            self.judge(where, row)

    def judge(self, where: str, row: Mapping[str, Any]) -> None:
        """Note a row that is no triplet; see `add`."""
        query, document, score = read_fields(where, _judgement(row), _JUDGEMENT).values()
        if query not in self._queries.rows or document not in self._corpus.rows:
            self._miss(where)
        if query in self._queries.rows:
            self.scores.setdefault(query, {})[document] = score

    def known(self, where: str, triplet: Triplet) -> Triplet | None:
        """A triplet with the documents that are there; None where the query or every positive is not."""
        parts = [[one for one in part if one in self._corpus.rows] for part in triplet[1:3]]
        if triplet.query not in self._queries.rows or not parts[0]:
            self._miss(where)
            return None
        return triplet._replace(positives=tuple(parts[0]), negatives=tuple(parts[1]))

    def _miss(self, where: str) -> None:
        self.missing += 1
        self.first_missing = self.first_missing or where

    def warn_of_missing(self) -> None:
        """Log how many judgements are of queries or documents that the set does not have."""
        if self.missing:
            logger.warning(
                "%d judgements are of queries or documents that are not there, first %s. As in mteb, a "
                "relevant document that is missing counts as not retrieved; training and mining leave it out",
                self.missing, self.first_missing,
            )  # fmt: skip

    def check_known(self, where: str, query: str, document: str) -> None:
        """Raise InputError unless the set has the query and the document."""
        if query not in self._queries.rows:
            raise InputError(f"{where}: query_id {query!r} is not among the queries. Repair or drop the row.")
        if document not in self._corpus.rows:
            raise InputError(f"{where}: corpus_id {document!r} is not in the corpus. Repair or drop the row.")
