"""Pairs of parts of one document: inverse cloze, body first, neighbours, titles, headings."""

from __future__ import annotations

import random
from collections.abc import Sequence

from embedtrain.making.documents import Document, joined, passages, sections, sentences, words_of
from embedtrain.making.maker import Pair, some
from embedtrain.settings.checks import at_least_one
from embedtrain.types import InputError


class _OfOneDocument:
    """A maker that looks at one document at a time."""

    name = ""

    def learn(self, documents: Sequence[Document]) -> None:
        """Nothing."""


class InverseCloze(_OfOneDocument):
    """A sentence, and the passage that it was taken from (Lee et al. 2019, 1906.00300).

    Args:
        per_document: most pairs of a document, each of another passage.
        words: about how many words a passage has.
        keep: how often the sentence stays in its passage; the paper's 0.1.

    Raises:
        InputError: for a number out of range.
    """

    name = "inverse_cloze"

    def __init__(self, per_document: int = 2, words: int = 150, keep: float = 0.1) -> None:
        at_least_one(per_document=per_document, words=words)
        if not 0 <= keep <= 1:
            raise InputError(f"keep must be in 0..1, got {keep}")
        self.per_document, self.words, self.keep = per_document, words, keep

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """As `Maker`."""
        every = passages(document, self.words)
        several = [number for number, passage in enumerate(every) if len(passage) > 1]
        found = []
        for number in some(several, self.per_document, draw):
            passage = every[number]
            taken = draw.randrange(len(passage))
            rest = passage if draw.random() < self.keep else [*passage[:taken], *passage[taken + 1 :]]
            found.append(Pair(passage[taken], joined(rest)))
        return found


class BodyFirst(_OfOneDocument):
    """A sentence of the first passage, and another passage of its document (Chang et al. 2020, 2002.03932).

    Args:
        per_document: most pairs of a document, each of another passage.
        words: about how many words a passage has.

    Raises:
        InputError: for a number below 1.
    """

    name = "body_first"

    def __init__(self, per_document: int = 2, words: int = 150) -> None:
        at_least_one(per_document=per_document, words=words)
        self.per_document, self.words = per_document, words

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """As `Maker`."""
        first, *rest = passages(document, self.words) or [[]]
        numbers = some(range(len(rest)), self.per_document, draw)
        return [Pair(draw.choice(first), joined(rest[number])) for number in numbers]


class Neighbours(_OfOneDocument):
    """Two passages that follow each other, as the spans of coCondenser (Gao and Callan 2022, 2108.05540).

    Args:
        per_document: most pairs of a document.
        words: about how many words a passage has.

    Raises:
        InputError: for a number below 1.
    """

    name = "neighbours"

    def __init__(self, per_document: int = 2, words: int = 60) -> None:
        at_least_one(per_document=per_document, words=words)
        self.per_document, self.words = per_document, words

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """As `Maker`."""
        every = [joined(passage) for passage in passages(document, self.words)]
        numbers = some(range(len(every) - 1), self.per_document, draw)
        return [Pair(every[number], every[number + 1]) for number in numbers]


class Title(_OfOneDocument):
    """The title of a document, and its beginning.

    Args:
        words: about how many words of the document there are.

    Raises:
        InputError: for a number below 1.
    """

    name = "title"

    def __init__(self, words: int = 150) -> None:
        at_least_one(words=words)
        self.words = words

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """As `Maker`."""
        first = next(iter(passages(document, self.words)), None)
        return [Pair(document.title, joined(first))] if document.title and first else []


class Heading(_OfOneDocument):
    """A heading, behind the title of its document, and the beginning of its section.

    Args:
        per_document: most pairs of a document.
        words: about how many words of a section there are.
        least: sections of fewer words are left out.

    Raises:
        InputError: for a number below 1.
    """

    name = "heading"

    def __init__(self, per_document: int = 8, words: int = 150, least: int = 8) -> None:
        at_least_one(per_document=per_document, words=words, least=least)
        self.per_document, self.words, self.least = per_document, words, least

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """As `Maker`."""
        found = []
        for heading, parts in sections(document):
            text = _beginning(parts, self.words)
            if heading and len(words_of(text)) >= self.least:
                named = document.title and document.title != heading
                found.append(Pair(f"{document.title}: {heading}" if named else heading, text))
        return [found[number] for number in some(range(len(found)), self.per_document, draw)]


def _beginning(parts: Sequence[str], words: int) -> str:
    """Whole sentences of paragraphs, the first always, up to a number of words."""
    taken, length = list[str](), 0
    for sentence in (one for part in parts for one in sentences(part)):
        length += len(words_of(sentence))
        if taken and length > words:
            break
        taken.append(sentence)
    return joined(taken)
