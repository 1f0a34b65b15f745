"""A hash of rows, by which a continued run knows that it trains on the rows that it began with."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterable
from typing import Any

from embedtrain.content_ids import content_id
from embedtrain.data.read.sources import Example

WITHOUT_REFERENCES = 2  # of marshal's formats: bytes depend on values alone, not on which objects are shared


class Fingerprint:
    """A hash that grows row by row; equal for equal rows in one order, wherever they are read from."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=20)

    def add(self, example: Example) -> None:
        """Take in a row."""
        try:
            row = marshal.dumps(_facts(example), WITHOUT_REFERENCES)
        except ValueError:  # contents that are no texts
            row = marshal.dumps(_facts(_numbered(example)), WITHOUT_REFERENCES)
        self._hash.update(row)

    def hex(self) -> str:
        """40 hexadecimal digits."""
        return self._hash.hexdigest()


def fingerprint(examples: Iterable[Example]) -> str:
    """The hash of all rows."""
    found = Fingerprint()
    for example in examples:
        found.add(example)
    return found.hex()


def _facts(example: Example) -> tuple[Any, ...]:
    query, positives, negatives, score, task, _, prompts, teacher = example
    return query, positives, negatives, score, task, tuple(prompts), teacher


def _numbered(example: Example) -> Example:
    return example._replace(
        query=content_id(example.query),
        positives=tuple(map(content_id, example.positives)),
        negatives=tuple(map(content_id, example.negatives)),
        score=None if example.score is None else float(example.score),
        teacher=tuple(map(float, example.teacher)),
    )
