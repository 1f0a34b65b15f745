"""Pairs that need more than one document: links, representative words, translations."""

from __future__ import annotations

import math
import posixpath
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from embedtrain.making.documents import Document, joined, links, paragraphs, sentences, words_of
from embedtrain.making.maker import Pair, some
from embedtrain.settings.checks import at_least_one
from embedtrain.types import InputError


class Links:
    """A sentence of the beginning of a document, and a paragraph elsewhere that links to the document.

    Wiki link prediction of Chang et al. 2020, 2002.03932. Links are those of Markdown, wikis and HTML; what
    they lead to is found by the name of a document, its path, or its title.

    Args:
        per_document: most pairs of the document that has the links.
        least: paragraphs of fewer words are left out.

    Raises:
        InputError: for a number below 1.
    """

    name = "links"

    def __init__(self, per_document: int = 8, least: int = 8) -> None:
        at_least_one(per_document=per_document, least=least)
        self.per_document, self.least = per_document, least
        self._targets: Mapping[str, Document] = {}

    def learn(self, documents: Sequence[Document]) -> None:
        """Take the names of all documents; of two that have one, the first counts."""
        found = dict[str, Document]()
        for document in documents:
            for name in filter(None, (document.name, document.title)):
                found.setdefault(_key(name), document)
        self._targets = found
        if not any(self._linked(document) for document in documents):
            raise InputError(
                f"maker=links: none of the {len(documents)} documents links to another one by its name, path "
                "or title; use another maker, e.g. maker=inverse_cloze"
            )

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """As `Maker`."""
        found = []
        for target, paragraph in self._linked(document):
            first = sentences(next(iter(paragraphs(target)), ""))
            if first and len(words_of(paragraph)) >= self.least:
                found.append(Pair(draw.choice(first), paragraph))
        return [found[number] for number in some(range(len(found)), self.per_document, draw)]

    def _linked(self, document: Document) -> list[tuple[Document, str]]:
        """Other documents that this one links to, each with the paragraph, once."""
        found = dict[tuple[str, str], tuple[Document, str]]()
        for target, paragraph in links(document):
            beside = posixpath.join(posixpath.dirname(document.name), target)
            named = (self._targets.get(_key(name)) for name in (target, beside))
            other = next((one for one in named if one is not None), None)
            if other is not None and other.where != document.where:
                found.setdefault((other.where, paragraph), (other, paragraph))
        return list(found.values())


class RepresentativeWords:
    """Words that a document's language model finds likely, and the document (PROP, Ma et al. 2021).

    Two sets of words of one length are drawn from the document; the one that its model with Dirichlet
    smoothing finds likelier is the query (2010.10137). Their number is drawn from a Poisson distribution.
    Words of many documents are left out, as the paper leaves out stop words.

    Args:
        per_document: most pairs of a document.
        length: expected number of words; the paper's 3.
        smoothing: Dirichlet's prior, in words.
        common: words that more than this share of the documents have are left out.
        words: about how many words of the document are the positive.

    Raises:
        InputError: for a number out of range.
    """

    name = "representative_words"

    def __init__(
        self,
        per_document: int = 2,
        length: float = 3.0,
        smoothing: float = 2000.0,
        common: float = 0.1,
        words: int = 150,
    ) -> None:
        at_least_one(per_document=per_document, words=words)
        if not length > 0 or not smoothing > 0 or not 0 < common <= 1:
            raise InputError(
                "length and smoothing must be above 0, common above 0 and at most 1, got "
                f"{length}, {smoothing}, {common}"
            )
        self.per_document, self.length, self.smoothing = per_document, length, smoothing
        self.common, self.words = common, words
        self._counts, self._left_out, self._total = Counter[str](), frozenset[str](), 0

    def learn(self, documents: Sequence[Document]) -> None:
        """Count words over the corpus."""
        holding = Counter[str]()
        for document in documents:
            own = words_of(joined(paragraphs(document)))
            self._counts.update(own)
            holding.update(set(own))
        most = max(1.0, self.common * len(documents))
        self._left_out = frozenset(word for word, count in holding.items() if count > most)
        self._total = self._counts.total()

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """As `Maker`."""
        parts = paragraphs(document)
        own = words_of(joined(parts))
        drawn = sorted({word for word in own if word not in self._left_out and not word.isdigit()})
        if len(drawn) < 2:
            return []
        counts = Counter(own)
        chances = [self.chance(word, counts) for word in drawn]
        positive = " ".join(joined(parts).split()[: self.words])
        found = []
        for _ in range(self.per_document):
            size = min(len(drawn), max(1, _poisson(self.length, draw)))
            sets = [_without_replacement(drawn, chances, size, draw) for _ in range(2)]
            best = max(sets, key=lambda words: sum(math.log(self.chance(word, counts)) for word in words))
            found.append(Pair(" ".join(best), positive))
        return found

    def chance(self, word: str, counts: Counter[str]) -> float:
        """P(word | document) = (count + smoothing · P(word | corpus)) / (words + smoothing)."""
        prior = self._counts[word] / max(1, self._total)
        return (counts[word] + self.smoothing * prior) / (counts.total() + self.smoothing)


class Translations:
    """A text and its translation, and the other way round.

    Args:
        both: whether each pair also stands with its sides exchanged.
    """

    name = "translations"

    def __init__(self, both: bool = True) -> None:
        self.both = both

    def learn(self, documents: Sequence[Document]) -> None:
        """Nothing but a check.

        Raises:
            InputError: if no document has a translation.
        """
        if not any(document.translation for document in documents):
            raise InputError(
                "maker=translations needs rows with text and translation (other names by columns), or two "
                "text files of equally many lines as a list, source=[...]"
            )

    def pairs(self, document: Document, draw: random.Random) -> list[Pair]:
        """As `Maker`."""
        if not document.translation:
            return []
        pair = Pair(document.text, document.translation)
        return [pair, Pair(pair.positive, pair.query)] if self.both else [pair]


def _key(name: str) -> str:
    """What two names of one document have in common: Cat_food, cat food, ./Cat%20food.md."""
    path = posixpath.normpath(unquote(name).strip().removeprefix("/"))
    for suffix in (".md", ".markdown", ".html", ".htm", ".txt"):
        path = path.removesuffix(suffix)
    return path.replace("_", " ").casefold()


def _poisson(mean: float, draw: random.Random) -> int:
    """Knuth 1969, algorithm Q."""
    limit, product, count = math.exp(-mean), draw.random(), 0
    while product > limit:
        product *= draw.random()
        count += 1
    return count


def _without_replacement(
    words: Sequence[str], chances: Sequence[float], size: int, draw: random.Random
) -> list[str]:
    """Words drawn in turn by their chances, each once (Efraimidis and Spirakis 2006)."""
    keys = [math.log(1 - draw.random()) / chance for chance in chances]
    order = sorted(range(len(words)), key=keys.__getitem__, reverse=True)
    return [words[number] for number in order[:size]]
