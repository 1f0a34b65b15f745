"""Which tokens of a text are hidden, and what takes their place.

Devlin et al. 2019 (1810.04805), appendix A: of the hidden tokens 80 % become the mask token, 10 % another
token and 10 % stay. Special tokens are neither hidden nor drawn.

Letters: T tokens, V ordinary tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from embedtrain.types import InputError

IGNORED = -100  # label of a token that is not to be predicted, as transformers has it
MARKS = ("\u0120", "\u2581")  # before the first token of a word: byte-level BPE, SentencePiece
Places = NDArray[np.int64]


class Hidden(NamedTuple):
    """One text with hidden tokens."""

    ids: NDArray[np.int64]  # (T,)
    labels: NDArray[np.int64]  # (T,) what was hidden, or IGNORED


class Hiding:
    """What a tokenizer says of words and special tokens.

    Args:
        tokenizer: of the texts.
        step: name of the option that asks, for messages.

    Raises:
        InputError: if the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, step: str) -> None:
        if tokenizer.mask_token_id is None:
            raise InputError(
                f"step={step} needs a tokenizer with a mask token, and {type(tokenizer).__name__} has none: "
                "choose an encoder such as BERT or ModernBERT, or another step"
            )
        self._mask_id: int = tokenizer.mask_token_id
        self._special = np.array(sorted(tokenizer.all_special_ids))
        self._others = np.setdiff1d(np.arange(tokenizer.vocab_size), self._special)  # (V,)
        self._continues = continuations(tokenizer)

    def ordinary(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which tokens are no special ones, in the shape of `ids`."""
        return ~np.isin(ids, self._special)

    def words(self, ids: NDArray[np.int64]) -> list[Places]:
        """The places of the ordinary tokens of each word of a text (T,)."""
        places = np.flatnonzero(self.ordinary(ids))
        if not len(places):
            return []
        first = ~self._continues[ids[places]] | (np.diff(places, prepend=-2) > 1)
        return np.split(places, np.flatnonzero(first)[1:])

    def hidden(self, ids: NDArray[np.int64], places: Places, draw: np.random.Generator) -> Hidden:
        """A text (T,) with something else at `places`, and what was there."""
        found, labels = ids.copy(), np.full(ids.shape, IGNORED)
        labels[places] = ids[places]
        how = draw.random(len(places))
        others = places[(how >= 0.8) & (how < 0.9)]
        found[places[how < 0.8]] = self._mask_id
        found[others] = self._others[draw.integers(len(self._others), size=len(others))]
        return Hidden(found, labels)


def nested_words(words: Sequence[Places], shares: Sequence[float], draw: np.random.Generator) -> list[Places]:
    """Places of whole words for each of ascending shares of the tokens, each set within the next.

    Words come in one drawn order; one that would exceed round(tokens * share), at least 1, is passed over.
    """
    order = draw.permutation(len(words))
    tokens = sum(map(len, words))
    taken: dict[int, int] = {}
    found = []
    for share in shares:
        room = max(1, round(tokens * share)) - sum(taken.values())
        for word in order.tolist():
            if room >= len(words[word]) and word not in taken:
                taken[word] = len(words[word])
                room -= len(words[word])
        found.append(np.sort(np.concatenate([words[word] for word in taken] or [np.empty(0, np.int64)])))
    return found


def continuations(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.bool_]:
    """Which tokens continue a word, by number; none where the vocabulary does not say so."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    continues = np.zeros(max((number for _, number in tokens), default=-1) + 1, bool)
    pieces = any(token.startswith("##") and len(token) > 2 for token, _ in tokens)
    marked = any(token.startswith(MARKS) and len(token) > 1 for token, _ in tokens)
    for token, number in tokens:
        if pieces:
            continues[number] = token.startswith("##") and len(token) > 2
        elif marked:
            continues[number] = not token.startswith(MARKS) and token[:1].isalnum()
    return continues
