"""Rows of retrieval sets in the local layout, for mining and evaluation: corpus, queries, judgements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from embedtrain.data.read.fields import (
    Field,
    Form,
    Ids,
    any_text,
    identifier,
    read_fields,
    text,
    whole_number,
)
from embedtrain.types import InputError

DOCUMENT: Form = {"title": Field(any_text, ""), "text": Field(any_text, "", may_be_missing=False)}
QUERY: Form = {"text": Field(text), "instruction": Field(any_text, "")}
_ID: Form = {"id": Field(identifier)}
_JUDGEMENT: Form = {
    "query_id": Field(identifier),
    "corpus_id": Field(identifier),
    "score": Field(whole_number),
}


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
        name = read_fields(where, row, _ID)["id"]
        fields = read_fields(where, row, self.form)
        self._ids.add(where, repr(name))
        self.rows[name] = Placed(where, fields)


class Judgements:
    """Which documents are relevant for which queries: 0 is not relevant."""

    def __init__(self, queries: ById, corpus: ById) -> None:
        self._queries, self._corpus = queries, corpus
        self.scores: dict[str, dict[str, int]] = {}  # query -> document -> score

    def add(self, where: str, row: Mapping[str, Any]) -> None:
        """Note a row. Raises InputError for a field that is wrong, and for an unknown query or document."""
        query, document, score = read_fields(where, row, _JUDGEMENT).values()
        self.check_known(where, query, document)
        self.scores.setdefault(query, {})[document] = score

    def check_known(self, where: str, query: str, document: str) -> None:
        """Raise InputError unless the set has the query and the document."""
        if query not in self._queries.rows:
            raise InputError(f"{where}: query_id {query!r} is not among the queries. Repair or drop the row.")
        if document not in self._corpus.rows:
            raise InputError(f"{where}: corpus_id {document!r} is not in the corpus. Repair or drop the row.")
