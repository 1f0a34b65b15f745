"""One forward for every sub-model: the pooled vectors of a task's texts at every layer of the grid.

A benchmark that treats each (layer, dim) as a model of its own encodes its texts once per sub-model. The bank
encodes each distinct text once, for all layers and over all ranks, and serves every sub-model as a slice of
that.

Letters: L layers of the grid, N distinct texts so far, M texts asked for, D embedding width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from embedtrain.evaluation.vectors.storage import ABSENT, IN_MEMORY, Handles, Keeping, Storage
from embedtrain.ranks import all_ranks, rank, world_size
from embedtrain.types import Cell, Embeddings, Role, SubModel
from embedtrain.vectors.store import key_of

Progress = Callable[[int, int], None]  # texts done, texts in all
_ROUND = 8_192  # texts that a rank encodes before they are stored: what a killed process loses


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
        """What comes before texts: by role, which `encode` applies itself, by task name or by task type."""

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


class Held(NamedTuple):
    """A text whose vectors a bank has."""

    role: Role
    prompt: str | None
    text: str
    handle: int  # of its vectors


class NotHeldError(Exception):
    """A closed bank was asked for a text that it does not hold."""


class GridBank:
    """The vectors of every text seen so far, by role, prompt and text; a new one is encoded when asked for.

    It lives as long as one task. When `closed` it serves what it holds: a lookup must not start the encoder
    in a forked process, or on one rank alone. Under several ranks all must ask for the same texts in the
    same order as long as it is open: each encodes a share and has all afterwards.

    `cells` are those that will be scored, and `searched` are their best documents of corpora that the bank
    does not hold (see `streaming`).

    Args:
        encoder: gives vectors.
        layers: those of the grid.
        encoded: receives how many texts are done.
        keeping: where vectors are; in memory, without limit, by default.
        identity: names the encoder's weights and settings, for a store that outlives the process.
        reused: receives how many texts the store had.

    Raises:
        InputError: from `vectors` too, for a store that cannot be read or written.
    """

    def __init__(
        self,
        encoder: Encodes,
        layers: Sequence[int],
        encoded: Callable[[int], None],
        keeping: Keeping = IN_MEMORY,
        identity: str = "",
        reused: Callable[[int], None] | None = None,
    ) -> None:
        self.encoder = encoder
        self.layers = tuple(sorted(set(layers)))
        self.storage = Storage(self.layers, encoder.width, keeping, identity)
        self.closed = False
        self.cells: tuple[Cell, ...] = ()
        self.searched: dict[Hashable, Any] = {}
        self._held: dict[int, tuple[object, bool]] = {}
        self._on_encoded, self._on_reused = encoded, reused
        self._encoded = self._reused = 0  # texts
        self._handles: dict[tuple[Role, str | None], dict[str, int]] = {}
        self._threads = torch.get_num_threads()
        self._corpus: tuple[object, tuple[list[str], list[str]]] = (None, ([], []))

    def __len__(self) -> int:
        return sum(len(part) for part in self._handles.values())

    def vectors(self, texts: Sequence[str], role: Role, sub: SubModel, prompt: str | None = None) -> Tensor:
        """Unit rows of one sub-model, (M, sub.dim) float32: truncated first, normalised after.

        `prompt` comes before every text; None is the role's own.

        Raises:
            ValueError: if the layer is not in the bank or the dim is outside 1..D.
            NotHeldError: if a text is new and the bank is closed.
        """
        if sub.layer not in self.layers:
            raise ValueError(f"layer {sub.layer} was not encoded, layers are {list(self.layers)}")
        if not 1 <= sub.dim <= self.encoder.width:
            raise ValueError(f"dim must be in 1..{self.encoder.width}, got {sub.dim}")
        known = self._handles.setdefault((role, prompt), {})
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new and self.closed:
            raise NotHeldError
        if new:
            self._add(new, role, prompt)
        handles = np.fromiter(map(known.__getitem__, texts), np.int64, len(texts))
        picked = self.storage.read(handles, sub.layer, sub.dim)  # (M, sub.dim)
        return Embeddings(picked[None], (sub.layer,)).at(sub)

    def held(self, text: str, role: Role) -> Held | None:
        """A text of that role, whatever its prompt; of any role where that one has no texts."""
        groups = [where for where in self._handles if where[0] == role] or list(self._handles)
        for where in groups:
            if (handle := self._handles[where].get(text)) is not None:
                return Held(*where, text, handle)
        return None

    def some(self, most: int) -> list[Held]:
        """At most about `most` texts that the bank holds, at equal distances."""
        step = max(1, len(self) // max(1, most))
        return [
            Held(*where, text, handle)
            for where, known in self._handles.items()
            for text, handle in islice(known.items(), 0, None, step)
        ]

    def of(self, texts: Sequence[Held], sub: SubModel) -> Tensor:
        """Unit rows of one sub-model of texts that the bank holds, (M, sub.dim) float32."""
        handles = np.array([one.handle for one in texts], dtype=np.int64)
        return Embeddings(self.storage.read(handles, sub.layer, sub.dim)[None], (sub.layer,)).at(sub)

    @property
    def corpus_read(self) -> tuple[list[str], list[str]]:
        """The ids and texts of the corpus that was last read; empty where none was."""
        return self._corpus[1]

    def corpus(
        self, corpus: object, read: Callable[[Any], tuple[list[str], list[str]]]
    ) -> tuple[list[str], list[str]]:
        """The ids and texts of a corpus, read once for all sub-models (mteb rebuilds them for each)."""
        if self._corpus[0] is not corpus:
            self._corpus = (corpus, read(corpus))
        return self._corpus[1]

    def holds(self, corpus: object, count: int, sample: Callable[[], Sequence[bytes]]) -> bool:
        """Whether memory or store have room for the vectors of a corpus; decided once, by the first rank.

        `sample` gives the keys of some of the `count` texts: the share of these that is in the store already
        is taken to be that of all.
        """
        if id(corpus) not in self._held and self.closed:
            return True  # `vectors` will say if it is not so
        if id(corpus) not in self._held:
            fits = self.storage.fits_memory(count)
            fits = fits or self.storage.fits_store(round(count * self.storage.lacking(sample())))
            self._held[id(corpus)] = (corpus, fits)  # who keeps the corpus keeps its id
        return self._held[id(corpus)][1]

    def passing(self, texts: Sequence[str], role: Role, prompt: str | None) -> Embeddings:
        """Un-normalised vectors (L, M, D) of texts, encoded by this rank alone and not stored."""
        if self.closed:
            raise NotHeldError
        row = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        values = self.storage.rounded(self.encode(list(row), role, prompt, world_size())).float()
        self._encoded += len(row) * world_size()
        index = torch.tensor([row[text] for text in texts], dtype=torch.int64)
        return Embeddings(values.index_select(1, index), self.layers)

    def _add(self, texts: list[str], role: Role, prompt: str | None) -> None:
        """Look distinct new texts up in the store, or encode them, some at a time."""
        known, step = self._handles[role, prompt], _ROUND * world_size()
        for start in range(0, len(texts), step):
            some = texts[start : start + step]
            keys = [key_of(role, prompt, text) for text in some]
            check_agreement(keys)
            handles = self.storage.find(keys)
            missing = np.flatnonzero(handles == ABSENT).tolist()
            self._reused += len(some) - len(missing)
            if self._on_reused is not None and len(missing) < len(some):
                self._on_reused(self._reused)
            if missing:
                lacking = [some[row] for row in missing]
                handles[missing] = self._encoded_by_all(lacking, [keys[row] for row in missing], role, prompt)
            known.update(zip(some, handles.tolist(), strict=True))

    def _encoded_by_all(self, texts: list[str], keys: list[bytes], role: Role, prompt: str | None) -> Handles:
        ranks = world_size()
        mine = share_of([len(text) for text in texts], ranks, rank())
        values = self.encode([texts[row] for row in mine], role, prompt, ranks)
        self._encoded += len(texts)
        self._on_encoded(self._encoded)
        return self.storage.add(keys, values, mine)

    def encode(self, texts: Sequence[str], role: Role, prompt: str | None, ranks: int = 1) -> Tensor:
        """Vectors (L, M, D) float32, of this process, not stored; `ranks` are at work alike, for progress.

        Raises:
            ValueError: if the encoder gives other layers than it was asked for.
        """
        if not texts:
            return torch.empty(len(self.layers), 0, self.encoder.width)
        before = self._encoded

        def progress(done: int, _: int) -> None:
            self._on_encoded(before + done * ranks)

        # Scoring runs with one thread per library, and that limit reaches torch's OpenMP too: the encoder,
        # called from inside the scoring, gets its threads back.
        limited = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            vectors = self.encoder.encode(texts, self.layers, role, progress, prompt=prompt)
        finally:
            torch.set_num_threads(limited)
        if vectors.layers != self.layers:
            raise ValueError(f"asked for layers {list(self.layers)}, the encoder gave {list(vectors.layers)}")
        return vectors.values.float()


def share_of(lengths: Sequence[int], ranks: int, rank: int) -> list[int]:
    """Numbers of the texts that a rank encodes, ascending.

    Dealt longest first, back and forth (1 2 3 3 2 1), so that counts differ by at most one and the sums of
    lengths by at most the longest.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    turn = 2 * ranks
    return sorted(
        row for place, row in enumerate(order) if min(place % turn, turn - 1 - place % turn) == rank
    )


def check_agreement(keys: Sequence[bytes]) -> None:
    """Check that all ranks ask for the same texts in the same order, lest vectors be mixed.

    Raises:
        RuntimeError: saying what each rank asked for.
    """
    if world_size() == 1:
        return
    asked = all_ranks((len(keys), hashlib.blake2b(b"".join(keys), digest_size=8).hexdigest()))
    if len(set(asked)) > 1:
        each = ", ".join(f"rank {rank}: {count} texts ({name})" for rank, (count, name) in enumerate(asked))
        raise RuntimeError(
            f"ranks ask for different texts: {each}. All must take the same tasks, and the first cell of "
            "each, in the same order, from the same data"
        )
