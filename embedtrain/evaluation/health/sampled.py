"""Which texts of a task are looked at: some that are encoded, and pairs of them that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.evaluation.mteb_private import Untyped, texts_of_table
from embedtrain.evaluation.vectors.bank import GridBank, Held

TEXTS = 256  # most of a task
NEAR = 0.8  # quantile of STS scores from which a pair is a positive


class Sampled(NamedTuple):
    """Texts of a task, each once."""

    texts: list[Held]  # N
    pairs: NDArray[np.int64]  # (P, 2) rows of those that belong together


def sampled(task: Untyped, bank: GridBank) -> Sampled:
    """At most TEXTS texts that the bank holds: both sides of positive pairs first, then others."""
    chosen: dict[Held, int] = {}
    pairs = set()
    for left, right in positives(task, bank):
        one, other = bank.held(left, "query"), bank.held(right, "document")
        if one is None or other is None or one == other:
            continue
        pairs.add((chosen.setdefault(one, len(chosen)), chosen.setdefault(other, len(chosen))))
        if len(chosen) >= TEXTS - 1:
            break
    rest = [one for one in bank.some(2 * TEXTS) if one not in chosen]
    for one in spread(rest, TEXTS - len(chosen)):
        chosen.setdefault(one, len(chosen))
    return Sampled(list(chosen), np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2))


def positives(task: Untyped, bank: GridBank) -> Iterator[tuple[str, str]]:
    """Texts that belong together, of the first evaluated part of the data; none for other types of task."""
    part = first_part(task)
    if part is None:
        return
    if isinstance(part, Mapping):
        yield from _judged(part, bank)
        return
    kind, columns = task.metadata.type, part.column_names
    if kind == "STS" and "score" in columns:
        names, labels = task.column_names, np.asarray(part["score"][:], dtype=np.float64)
        near = labels >= np.quantile(labels, NEAR)
    elif kind == "PairClassification" and task.label_column_name in columns and len(part) > 1:
        names = (task.input1_column_name, task.input2_column_name)
        near = np.asarray(part[task.label_column_name][:]) == 1
    else:
        return
    for row in spread(np.flatnonzero(near).tolist(), TEXTS):
        item = part[row]
        yield item[names[0]], item[names[1]]


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of them, at equal distances."""
    if most <= 0:
        return []
    step = max(1, -(-len(items) // most))
    return list(items[::step])


def first_part(task: Untyped) -> Untyped:
    """A table, or the tables of a ranking; None where the data have another form."""
    data = task.dataset
    for key in (*getattr(task, "hf_subsets", ()), *task.eval_splits):
        if isinstance(data, Mapping) and key in data:
            data = data[key]
    if isinstance(data, Mapping):
        return data if "relevant_docs" in data else None
    return data if hasattr(data, "column_names") else None


def _judged(part: Mapping[str, Any], bank: GridBank) -> Iterator[tuple[str, str]]:
    """Queries with a relevant document, where the corpus is in the bank."""
    ids, texts = bank.corpus_read
    where = {name: row for row, name in enumerate(ids)}
    queries = part["queries"]
    rows = spread(range(len(queries)), TEXTS)
    some = queries.select(rows)
    for name, text in zip(some["id"][:], texts_of_table(some, "query"), strict=True):
        judged = part["relevant_docs"].get(name, {})
        good = (where[doc] for doc, score in judged.items() if score > 0 and doc in where)
        for row in islice(good, 1):
            yield text, texts[row]
