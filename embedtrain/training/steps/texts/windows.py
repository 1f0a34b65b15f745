"""Texts of rows as token ids; of a text that is longer than the model reads, a window.

Where a window begins is drawn anew at each step, at the beginning of a word, so that in time all of a long
document is read. A draw is a function of (seed, step, row), whatever the rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embedtrain.data.order.draw import Pick
from embedtrain.model.inputs.tokenizer import Read, TextTokenizer

LETTERS = 32  # characters that are looked at for each token of a window
BACK = 40  # characters in which the beginning of a word is sought
WINDOW = 1  # number of the draw of windows


class Drawn(NamedTuple):
    """The texts of some rows, and a source of random numbers for each."""

    read: list[Read]  # M texts
    keys: list[tuple[int, ...]]  # (seed, step, row, place) of each

    def generator(self, text: int, *purpose: int) -> np.random.Generator:
        """The random numbers of a text for a purpose, the same on every rank."""
        return np.random.default_rng((*self.keys[text], *purpose))


def read_texts(picks: Sequence[Pick], step: int, process: TextTokenizer, seed: int) -> Drawn:
    """Of each row its query, and the positive and negatives that take part, each as at most a window."""
    texts: list[str] = []
    keys: list[tuple[int, ...]] = []
    for item in picks:
        own = texts_of(item)
        texts += own
        keys += [(seed, step, item.number, place) for place in range(len(own))]
    drawn = Drawn([], keys)
    far = LETTERS * process.max_length
    texts = [_part(text, far, drawn, number) for number, text in enumerate(texts)]
    read = process.read(texts, "document", [""] * len(texts))
    full = [number for number, one in enumerate(read) if one.length >= process.max_length]
    begun = [_begun(texts[number], process, drawn.generator(number, WINDOW)) for number in full]
    for number, one in zip(full, process.read(begun, "document", [""] * len(full)), strict=True):
        read[number] = one
    return drawn._replace(read=read)


def texts_of(pick: Pick) -> list[str]:
    """The texts of a row that take part."""
    example = pick.example
    positives = example.positives[pick.positive : pick.positive + 1]
    return [example.query, *positives, *(example.negatives[number] for number in pick.negatives)]


def _part(text: str, far: int, drawn: Drawn, number: int) -> str:
    """`far` characters of a longer text."""
    if len(text) <= far:
        return text
    start = int(drawn.generator(number, WINDOW, 0).integers(len(text) - far + 1))
    return text[_word(text, start) :][:far]


def _begun(text: str, process: TextTokenizer, draw: np.random.Generator) -> str:
    """The text from a word on that leaves about as many tokens as the model reads."""
    tokenizer = process.tokenizer
    count = len(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])
    room = process.max_length - tokenizer.num_special_tokens_to_add()
    if count <= room:
        return text
    begin = int(draw.integers(count - room + 1))
    return text[_word(text, len(text) * begin // count) :]


def _word(text: str, start: int) -> int:
    """Where the word around `start` begins; `start` in what has no spaces."""
    for place in range(start, max(start - BACK, 0), -1):
        if text[place - 1].isspace():
            return place
    return start if start > BACK else 0
