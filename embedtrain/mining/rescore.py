"""A cross-encoder's scores of pairs, in the place of the teacher's, stored on disk.

Pairs are scored in parts of some queries with all their documents; a part is one record of a vector store.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedtrain.model.folder.contract import tensors_hash, text_hash, tokenizer_hash
from embedtrain.types import InputError
from embedtrain.vectors.store import VectorStore, key_of

PAIRS = 4_096  # scored between two writes: what a kill costs


class Scores(Protocol):
    """Scores of pairs of texts."""

    @property
    def identity(self) -> str:
        """Names whatever decides a score but the texts."""
        ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """(n,) one of each (query, document)."""
        ...


class CrossEncoderScores:
    """A cross-encoder of sentence-transformers with one output.

    Args:
        path: folder or hub name.
        device: "auto", "cpu", "cuda", ...

    Raises:
        InputError: when it cannot be loaded or gives more than one number a pair.
    """

    def __init__(self, path: str, *, device: str = "auto") -> None:
        from sentence_transformers import CrossEncoder  # seconds to import, and seldom asked for

        try:
            self.model = CrossEncoder(path, device=None if device == "auto" else device)
        except Exception as error:  # whatever a library of many authors' models raises
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise InputError(
                f"cross_encoder={path} cannot be loaded ({reason}). Give a folder or hub name."
            ) from error
        if self.model.num_labels != 1:
            raise InputError(f"cross_encoder={path} gives {self.model.num_labels} numbers a pair, not one")
        weights = tensors_hash(self.model.model.state_dict())
        reads = f"{tokenizer_hash(self.model.tokenizer)} {self.model.max_length}"
        kind = next(self.model.model.parameters()).dtype
        text = f"{weights} {reads} {kind} {self.model.activation_fn} {self.model.prompts}"
        self.identity = text_hash(text)

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """(n,) through the model's own activation, batches sorted by length."""
        scores: NDArray[np.float32] = self.model.predict(list(pairs), show_progress_bar=False)
        return np.asarray(scores, dtype=np.float32)


class PairScores:
    """Scores of many pairs, made part by part.

    Args:
        folder: of all scores.
        model: makes them.
    """

    def __init__(self, folder: str | Path, model: Scores) -> None:
        self.model, self.store = model, VectorStore(folder, identity=model.identity, width=PAIRS)

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """(n,) scores, from the disk where they are there; a damaged part is made again, with a warning.

        Raises:
            InputError: when the disk is full or the place cannot be written, or a score is not finite.
        """
        parts = [self._part(pairs[start : start + PAIRS]) for start in range(0, len(pairs), PAIRS)]
        return np.concatenate([np.empty(0, dtype=np.float32), *parts])

    def _part(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        key = key_of(*pairs)
        there, stored = self.store.find([key])
        if there[0]:
            return stored[0, : len(pairs)].astype(np.float32)
        scores = self.model.score(pairs)
        if not np.isfinite(scores).all():
            query, document = pairs[int(np.flatnonzero(~np.isfinite(scores))[0])]
            raise InputError(
                f"the cross-encoder's score of {query[:80]!r} and {document[:80]!r} is not finite"
            )
        self.store.add([key], scores[None])
        return scores
