"""What a maker of pairs is, and pairs of all documents.

The pairs of a document depend on its content, on the seed and, where a maker says so, on the other documents;
never on the order of the documents.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from embedtrain.content_ids import content_id
from embedtrain.making.documents import Document


class Pair(NamedTuple):
    """A query and the text that belongs to it."""

    query: str
    positive: str


class Maker(Protocol):
    """A way to make pairs of documents.

    `learn` is called once with all documents, then `pairs` with each.
    """

    name: str  # the task of its rows

    def learn(self, documents: Sequence[Document]) -> None:
        """Take what it needs of the whole corpus.

        Raises:
            InputError: for a corpus that it cannot use.
        """
        ...

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """The pairs of a document; `draw` is of its content and the seed."""
        ...


class Made(NamedTuple):
    """The pairs of a document that are worth training on."""

    document: Document
    pairs: list[Pair]
    left_out: int  # equal to another pair, or of a query equal to its positive, or empty


def made(
    maker: Maker, documents: Sequence[Document], seed: int, progress: Callable[[int], object] = lambda _: None
) -> Iterator[Made]:
    """The pairs of each document, in their order; each pair once.

    Args:
        maker: has learnt the documents.
        documents: all of them.
        seed: of all draws.
        progress: gets the number of documents that are done.
    """
    seen = set[Pair]()
    for number, document in enumerate(documents, 1):
        draw = random.Random(content_id(f"{seed} {document.title}\n{document.text}"))
        every = [Pair(query.strip(), positive.strip()) for query, positive in maker.pairs(document, draw)]
        new = []
        for pair in every:
            if pair not in seen and pair.query and pair.positive and pair.query != pair.positive:
                seen.add(pair)
                new.append(pair)
        yield Made(document, new, len(every) - len(new))
        progress(number)


def some(values: Sequence[int], most: int, draw: random.Random) -> list[int]:
    """At most `most` of some numbers, in their order."""
    return sorted(draw.sample(values, most)) if len(values) > most else list(values)
