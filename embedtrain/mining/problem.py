"""What is mined: queries, documents, and who may not be whose negative.

Letters: Q distinct queries, n documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.content_ids import content_id
from embedtrain.data.read.sources import Example
from embedtrain.types import InputError

Integers = NDArray[np.int64]


class Query(NamedTuple):
    """A query as the teacher reads it."""

    text: str
    prompt: str | None  # None is the teacher's own


class Problem(NamedTuple):
    """Queries of one kind and the documents that they share.

    Rows of one query text are one query here (for each prompt): what is labelled in any of them is no
    negative in all of them.
    """

    queries: tuple[Query, ...]  # Q
    documents: tuple[str, ...]  # n distinct texts; candidates come first
    pool: int  # how many are candidates; the others are labelled texts that the corpus does not have
    positives: tuple[Integers, ...]  # of each query: document numbers, ascending
    own: tuple[Integers, ...]  # of each query: negatives that its rows bring and keep, ascending
    banned: tuple[Integers, ...]  # of each query: documents below `pool` that are no candidates, ascending
    rows: Integers  # (R,) row number of each row
    query_of: Integers  # (R,) query of each row

    def labelled(self, query: int) -> Integers:
        """A query's positives, then the negatives that its rows keep: scored without being mined."""
        return np.concatenate([self.positives[query], self.own[query]])


def problems_of(
    rows: Iterable[tuple[int, Example]],
    *,
    corpus: Sequence[str] | None = None,
    keep_negatives: bool = False,
    instructions: bool = False,
) -> list[Problem]:
    """The problems of numbered rows.

    Args:
        rows: row numbers and rows; rows of one task, of all tasks when there is a corpus, are one problem.
        corpus: candidates; the positives and negatives of the task's rows when None.
        keep_negatives: whether rows keep the negatives they have, so that those are mined no more.
        instructions: whether queries go behind their rows' own prompts.

    Raises:
        InputError: for a scored row, which has no room for negatives; when there is no row or no document.
    """
    groups: dict[str, list[tuple[int, Example]]] = {}
    for number, example in rows:
        if example.score is not None:
            raise InputError(
                f"{example.where}: a scored row takes no negatives. Mine rows of query and positives."
            )
        groups.setdefault("" if corpus is not None else example.task, []).append((number, example))
    if not groups:
        raise InputError("there are no rows to mine negatives for. Give a source with at least one row.")
    return [_problem(group, corpus, keep_negatives, instructions) for group in groups.values()]


def _problem(
    rows: Sequence[tuple[int, Example]], corpus: Sequence[str] | None, keep: bool, instructions: bool
) -> Problem:
    labelled = (text for _, example in rows for text in example.positives)
    brought = (text for _, example in rows for text in example.negatives)
    named = dict.fromkeys([*labelled, *brought])
    pool = len(named) if corpus is None else len(corpus)
    texts = list(named) if corpus is None else list(dict.fromkeys([*corpus, *named]))
    number = {text: place for place, text in enumerate(texts)}
    positives: dict[str, set[int]] = {}  # by query text, behind any prompt
    own: dict[str, set[int]] = {}
    for _, example in rows:
        positives.setdefault(example.query, set()).update(number[text] for text in example.positives)
        others = example.negatives if keep else ()
        own.setdefault(example.query, set()).update(number[text] for text in others)
    banned = {
        text: mine | own[text] | ({number[text]} if text in number else set())
        for text, mine in positives.items()
    }
    queries: dict[Query, int] = {}
    asked = []
    for _, example in rows:
        query = Query(example.query, example.prompts.query if instructions else None)
        asked.append(queries.setdefault(query, len(queries)))
    return Problem(
        queries=tuple(queries),
        documents=tuple(texts),
        pool=pool,
        positives=tuple(_sorted(positives[query.text], len(texts)) for query in queries),
        own=tuple(_sorted(own[query.text] - positives[query.text], len(texts)) for query in queries),
        banned=tuple(_sorted(banned[query.text], pool) for query in queries),
        rows=np.array([row for row, _ in rows], dtype=np.int64),
        query_of=np.array(asked, dtype=np.int64),
    )


def draw_key(seed: int, step: int, query: str) -> tuple[int, ...]:
    """What a draw for a query depends on: never its place among others, or the number of ranks."""
    return seed, step, content_id(query)


def _sorted(numbers: set[int], below: int) -> Integers:
    return np.array(sorted(number for number in numbers if number < below), dtype=np.int64)
