"""Vectors of many texts on disk, made in parts of consecutive texts.

A vector's last digits depend on the texts that it was encoded beside. So its key names its whole part, and a
part with anything missing is encoded whole: rows do not depend on kills, ranks or what was mined before.

Letters: n texts, G width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from embedtrain.mining.teacher import Embeds
from embedtrain.types import InputError, Role
from embedtrain.vectors.store import VectorStore, key_of
from embedtrain.vectors.topk import Rows

PART = 2_048  # texts encoded, sorted by length, and lost by a kill together: some ten seconds of two cores

Progress = Callable[[int], None]  # receives texts encoded or in the store, since the last call


class TextVectors:
    """The vectors of some texts by one teacher, made part by part.

    Args:
        store: holds vectors of this teacher.
        teacher: makes them.
        texts: n texts, each once for the sake of time.
        role: of all of them.
        prompts: one a text or None; as `Embeds.embed`.
        part: texts in a part.
    """

    def __init__(
        self,
        store: VectorStore,
        teacher: Embeds,
        texts: Sequence[str],
        role: Role,
        *,
        prompts: Sequence[str | None] | None = None,
        part: int = PART,
    ) -> None:
        self.store, self.teacher, self.texts, self.role = store, teacher, texts, role
        self.prompts = [None] * len(texts) if prompts is None else prompts
        self.parts = [slice(start, start + part) for start in range(0, len(texts), part)]

    def fill(self, *, shard: int = 0, shards: int = 1, progress: Progress | None = None) -> int:
        """Make those parts of this shard (0-based, of `shards`) that are not there; the texts encoded.

        Raises:
            InputError: when the disk is full or the place cannot be written.
        """
        encoded = 0
        for part in self.parts[shard::shards]:
            texts, keys = self.texts[part], self._keys(part)
            if (self.store.locate(keys) < 0).any():
                prompts = self.prompts[part] if any(self.prompts[part]) else None
                self.store.add(keys, self.teacher.embed(texts, self.role, prompts))
                encoded += len(texts)
            if progress is not None:
                progress(len(texts))
        return encoded

    def open(self) -> Rows:
        """All vectors, checked.

        Raises:
            InputError: when parts are missing.
        """
        located = [self.store.locate(self._keys(part)) for part in self.parts]
        missing = sum(bool((places < 0).any()) for places in located)
        if missing:
            raise InputError(
                f"{self.store.folder}: {missing} of {len(self.parts)} parts of the {self.role} vectors are "
                "missing. Run the shards that were left out, or run once without shard=."
            )
        places = np.concatenate([np.empty(0, dtype=np.int64), *located])

        def take(numbers: NDArray[np.int64]) -> NDArray[np.generic]:
            return self.store.read(places[numbers])

        return Rows(self.store.width, take)

    def _keys(self, part: slice) -> list[bytes]:
        whole = key_of(self.role, *self.prompts[part], *self.texts[part])
        return [key_of(whole, row) for row in range(len(self.texts[part]))]
