"""One forward for every sub-model: the pooled vectors of a task's texts at every layer of the grid.

A benchmark that treats each (layer, dim) as a model of its own encodes its texts once per sub-model. The bank
encodes each distinct text once, for all layers, and serves every sub-model as a slice of that.

Letters: L layers kept, N distinct texts so far, M texts asked for, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from embedtrain.types import Embeddings, Role, SubModel

Progress = Callable[[int, int], None]  # texts done, texts in all


class Encodes(Protocol):
    """What an evaluation needs of a model."""

    @property
    def num_layers(self) -> int:
        """Transformer blocks of the full model."""

    @property
    def width(self) -> int:
        """Coordinates of the full embedding, D."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """What stands before texts: by role, which `encode` applies itself, by task name or by task type."""

    def encode(
        self,
        texts: Sequence[str],
        layers: Sequence[int],
        role: Role = "document",
        progress: Progress | None = None,
        *,
        prompt: str | None = None,
    ) -> Embeddings:
        """Un-normalised vectors (L, M, D) on the CPU, texts in input order; `prompt` None is the role's."""


class _Key(NamedTuple):
    """What makes a vector: the same text behind another prompt is another one."""

    role: Role
    prompt: str | None  # None is the role's own
    text: str


class GridBank:
    """The vectors of every text seen so far, by role, prompt and text; a new one is encoded when asked for.

    The store is one (L, capacity, D) float32 tensor whose capacity doubles, so that many small requests cost
    O(N) copies and not O(N^2). It lives as long as one task. `encoded` is told how many texts are done.
    """

    def __init__(self, encoder: Encodes, layers: Sequence[int], encoded: Callable[[int], None]) -> None:
        self.encoder = encoder
        self.layers = tuple(sorted(set(layers)))
        self._encoded = encoded
        self._row: dict[_Key, int] = {}
        self._store = torch.empty(len(self.layers), 0, encoder.width)
        self._threads = torch.get_num_threads()
        self._corpus: tuple[object, tuple[list[str], list[str]]] = (None, ([], []))

    def __len__(self) -> int:
        return len(self._row)

    def vectors(self, texts: Sequence[str], role: Role, sub: SubModel, prompt: str | None = None) -> Tensor:
        """Unit rows of one sub-model, (M, sub.dim) float32: truncated first, normalised after.

        `prompt` stands before every text; None is the role's own.

        Raises:
            ValueError: if the layer is not in the bank or the dim is outside 1..D.
        """
        rows = self._rows([_Key(role, prompt, text) for text in texts])
        picked = Embeddings(self._store, self.layers).raw(sub).index_select(0, rows)  # (M, sub.dim)
        return Embeddings(picked[None], (sub.layer,)).at(sub)

    def corpus(
        self, corpus: object, read: Callable[[Any], tuple[list[str], list[str]]]
    ) -> tuple[list[str], list[str]]:
        """The ids and texts of a corpus, read once for all sub-models (mteb rebuilds them for each)."""
        if self._corpus[0] is not corpus:
            self._corpus = (corpus, read(corpus))
        return self._corpus[1]

    def _rows(self, keys: Sequence[_Key]) -> Tensor:
        new = [key for key in dict.fromkeys(keys) if key not in self._row]
        if new:
            self._add(new)
        return torch.tensor([self._row[key] for key in keys], dtype=torch.int64)  # (M,)

    def _add(self, keys: list[_Key]) -> None:
        values = self._encode(keys)  # (L, len(keys), D)
        used = len(self._row)
        needed = used + len(keys)
        if needed > self._store.shape[1]:
            grown = torch.empty(len(self.layers), max(needed, 2 * used), values.shape[-1])
            grown[:, :used] = self._store[:, :used]
            self._store = grown
        self._store[:, used:needed] = values
        self._row.update({key: used + offset for offset, key in enumerate(keys)})

    def _encode(self, keys: list[_Key]) -> Tensor:
        """Vectors (L, M, D) of keys that differ in their text alone."""
        # Scoring runs with one thread per library, and that limit reaches torch's OpenMP too: the encoder,
        # called from inside the scoring, gets its threads back.
        before, limited = len(self._row), torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            found = self.encoder.encode(
                [key.text for key in keys],
                self.layers,
                keys[0].role,
                lambda done, _: self._encoded(before + done),
                prompt=keys[0].prompt,
            )
        finally:
            torch.set_num_threads(limited)
        if found.layers != self.layers:
            raise ValueError(f"asked for layers {list(self.layers)}, the encoder gave {list(found.layers)}")
        return found.values.float()
