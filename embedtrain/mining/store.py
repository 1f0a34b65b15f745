"""Vectors of many texts on disk, in the order of the texts, in parts that are whole or absent.

A part holds the vectors of `part` consecutive texts of one role. Its file is named after its place and what
the texts are, in a folder named after what the teacher is, so that nothing stale is ever found. Any process
may make any part: ranks and separate invocations divide them, and a killed one loses the part it was at.

Letters: n texts, G width of a vector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.mining.blocks import DamagedError, block_key, mapped, read_block, sweep_abandoned, write_block
from embedtrain.mining.teacher import Embeds
from embedtrain.types import InputError, Role

log = logging.getLogger(__name__)
PART = 2_048  # texts encoded, sorted by length, and lost by a kill together: some ten seconds of two cores
DTYPE = np.dtype(np.float16)

Tick = Callable[[int], None]  # texts encoded, or found, since the last call


class Vectors(NamedTuple):
    """(n, G) float16 or float32 in consecutive parts, memory-mapped or not."""

    parts: Sequence[NDArray[np.generic]]
    starts: NDArray[np.int64]  # (parts + 1,) first row of each, and n

    @property
    def width(self) -> int:
        """G."""
        return int(self.parts[0].shape[1]) if self.parts else 0

    def blocks(self, stop: int, size: int) -> Iterator[tuple[int, Tensor]]:
        """(first row, (m, G) float32) of rows 0..stop-1, at least `size` rows at a time but for the last."""
        held: list[NDArray[np.generic]] = []
        first = rows = 0
        for part, start in zip(self.parts, self.starts.tolist(), strict=False):
            piece = part[: max(0, stop - start)]
            held.append(piece)
            rows += len(piece)
            if rows >= size:
                yield first, _float32(held)
                first, rows, held = first + rows, 0, []
        if rows:
            yield first, _float32(held)

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.generic]:
        """(m, G) rows as they are kept, in the order of `numbers` (m,)."""
        found = np.empty((len(numbers), self.width), self.parts[0].dtype if self.parts else DTYPE)
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], self.starts)  # (parts + 1,)
        for place in np.flatnonzero(np.diff(bounds)).tolist():
            mine = order[bounds[place] : bounds[place + 1]]
            found[mine] = self.parts[place][numbers[mine] - self.starts[place]]
        return found


def in_memory(array: NDArray[np.generic]) -> Vectors:
    """Vectors that are one array."""
    return Vectors((array,), np.array([0, len(array)], dtype=np.int64))


class MappedParts(Sequence[NDArray[np.generic]]):
    """Files as arrays, each mapped while it is in use: a large store has more of them than may be open."""

    def __init__(self, files: Sequence[tuple[Path, tuple[int, int]]]) -> None:
        self._files = files  # (path, shape)

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, place: int) -> NDArray[np.generic]: ...
    @overload
    def __getitem__(self, place: slice) -> MappedParts: ...
    def __getitem__(self, place: int | slice) -> NDArray[np.generic] | MappedParts:
        if isinstance(place, slice):
            return MappedParts(self._files[place])
        path, shape = self._files[place]
        return mapped(path, shape, DTYPE)


class VectorStore:
    """The vectors of some texts by one teacher, made part by part.

    Args:
        folder: of all stores.
        teacher: makes the vectors.
        texts: n texts, each once for the sake of time.
        role: of all of them.
        prompts: one a text or None; as `Embeds.embed`.
        part: texts in a part.
    """

    def __init__(
        self,
        folder: str | Path,
        teacher: Embeds,
        texts: Sequence[str],
        role: Role,
        *,
        prompts: Sequence[str | None] | None = None,
        part: int = PART,
    ) -> None:
        self.folder = Path(folder).expanduser() / f"{teacher.identity[:16]}-{role}-{DTYPE}"
        self.teacher, self.texts, self.role = teacher, texts, role
        self.prompts = [None] * len(texts) if prompts is None else prompts
        self.part, self.parts = part, -(-len(texts) // part)
        self._keys = [self._key(number) for number in range(self.parts)]

    def fill(self, *, shard: int = 0, shards: int = 1, tick: Tick | None = None) -> int:
        """Make those parts of this shard (0-based, of `shards`) that are not there; the texts encoded.

        A damaged part is made again, with a warning.

        Raises:
            InputError: when the disk is full or the place cannot be written.
        """
        encoded = 0
        for number in range(shard, self.parts, shards):
            span = self._span(number)
            if self._found(number) is None:
                prompts = self.prompts[span] if any(self.prompts[span]) else None
                vectors = self.teacher.embed(self.texts[span], self.role, prompts)
                write_block(self._path(number), self._keys[number], vectors.astype(DTYPE))
                encoded += len(vectors)
            if tick is not None:
                tick(len(self.texts[span]))
        return encoded

    def open(self) -> Vectors:
        """All vectors, memory-mapped and checked.

        Raises:
            InputError: when parts are missing.
        """
        missing = sum(self._found(number) is None for number in range(self.parts))
        if missing:
            raise InputError(
                f"{self.folder}: {missing} of {self.parts} parts of the {self.role} vectors are missing. Run "
                "the shards that were left out, or run once without shard=."
            )
        if self.folder.is_dir():
            sweep_abandoned(self.folder)
        ends = [min(number * self.part, len(self.texts)) for number in range(self.parts + 1)]
        files = [(self._path(number), self._shape(number)) for number in range(self.parts)]
        return Vectors(MappedParts(files), np.array(ends, dtype=np.int64))

    def _found(self, number: int) -> NDArray[np.generic] | None:
        path, shape = self._path(number), self._shape(number)
        try:
            return read_block(path, self._keys[number], shape, DTYPE)
        except DamagedError:
            log.warning("%s is damaged: its %d texts are encoded again", path, shape[0])
            path.unlink(missing_ok=True)
            return None

    def _shape(self, number: int) -> tuple[int, int]:
        return len(self.texts[self._span(number)]), self.teacher.width

    def _span(self, number: int) -> slice:
        return slice(number * self.part, (number + 1) * self.part)

    def _key(self, number: int) -> bytes:
        span = self._span(number)
        own = [f"{prompt!r}" for prompt in self.prompts[span]]
        return block_key(self.teacher.identity, self.role, DTYPE, *own, *self.texts[span])

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}-{self._keys[number].hex()[:16]}.vectors"


def _float32(parts: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.cat([torch.from_numpy(np.array(part)).float() for part in parts])
