"""Rows of ids in place of judgements: a query, its positives, its negatives, whose texts are in other files.

{"query-id", "positive-id", "negative-id"}    sentence-transformers; numbered, and lists, too
{"qid", "pos": [...], "neg": {"bm25": [...]}}    hard negatives of MS MARCO
1<tab>7<tab>9                                 in a file named triplets or triples
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from embedtrain.data.read.forms import NUMBER, plain

_ID = r"(?:p|doc|passage|corpus|document)?_?ids?"
_QUERY = re.compile(r"q_?ids?|query(?:_?ids?)?|anchor_?id")
_POSITIVE = re.compile(rf"(?:positives?|pos|relevant)_?{_ID}|positives?|pos")
_NEGATIVE = re.compile(rf"(?:hard_)?(?:negatives?|neg)(?:_?{_ID})?(?:_?\d+)?")
_SCORE = re.compile(r"scores?|labels?|margin")


class Triplet(NamedTuple):
    """The ids of a row."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    score: Any = None  # as a row of texts has it: a margin, or a teacher's scores


def triplet_of(where: str, row: Mapping[str, Any]) -> Triplet | None:
    """The ids of a row that is no judgement; None for one that is."""
    if "column_1" in row:
        cells = [str(cell) for cell in row.values()]
        by_file = "trip" in where.replace("\\", "/").rpartition("/")[2]
        if len(cells) < 3 or not (by_file or (len(cells) == 3 and NUMBER.fullmatch(cells[2]) is None)):
            return None
        return Triplet(cells[0], (cells[1],), tuple(cells[2:]))
    names = _names(tuple(row))
    if names is None:
        return None
    query, positives, negatives, score = names
    good, others = (tuple(one for name in part for one in _ids(row[name])) for part in (positives, negatives))
    return Triplet(str(row[query]), good, others, row[score] if score else None)


@lru_cache(maxsize=256)
def _names(row: tuple[str, ...]) -> tuple[str, tuple[str, ...], tuple[str, ...], str | None] | None:
    """The names of query, positives, negatives and score."""
    found = [
        tuple(name for name in row if form.fullmatch(plain(name)))
        for form in (_QUERY, _POSITIVE, _NEGATIVE, _SCORE)
    ]
    query, positives, negatives, score = found
    return (query[0], positives, negatives, next(iter(score), None)) if query and positives else None


def _ids(value: object) -> Iterator[str]:
    """Ids of a value, a list, or lists by who found them."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _ids(one)
    elif value is not None:
        yield str(value)
