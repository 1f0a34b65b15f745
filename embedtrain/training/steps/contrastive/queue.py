"""Documents of past steps as further negatives: a first-in, first-out queue of embeddings without gradient.

Wang et al. 2020, Cross-Batch Memory, 1912.06798: the embeddings are those of the weights of their own step,
so a queue that spans few steps is more faithful than a long one. He et al. 2020, MoCo, 1911.05722, embed with
a second, slowly moving encoder; there is none here.

Letters: Q documents in the queue, n new ones, L layers, D width, G width of a guide.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from embedtrain.transfers import moved
from embedtrain.types import InputError

ROOM = 2  # times the documents held: where their vectors lie


class Documents(NamedTuple):
    """Embedded documents that take no gradient, and what the rules need to know of them."""

    values: Tensor  # (L, n, D), not normalised
    content_ids: Tensor  # (n,) int64, this and the next two of the host
    task: Tensor  # (n,) int64, of the query that brought it
    hard: Tensor  # (n,) bool, True where it came as a hard negative
    guide: Tensor | None  # (n, G) unit vectors

    def rows(self, index: Tensor) -> Documents:
        """Some of them: `index` (m,) int64 or (n,) bool, of the host."""
        index = index.nonzero()[:, 0] if index.dtype == torch.bool else index
        there = moved(index, self.values.device)
        guide = None if self.guide is None else self.guide[there]
        ids, task, hard = (part[index] for part in (self.content_ids, self.task, self.hard))
        return Documents(self.values[:, there], ids, task, hard, guide)

    def to_device(self, device: torch.device) -> Documents:
        """The same, its vectors there and the rest on the host."""
        ids, task, hard = (part.cpu() for part in (self.content_ids, self.task, self.hard))
        guide = None if self.guide is None else moved(self.guide, device)
        return Documents(moved(self.values, device), ids, task, hard, guide)

    def distinct(self) -> Documents:
        """One of each (text, task), the last where several are; hard only if all of them are."""
        texts = torch.stack([self.content_ids, self.task])  # (2, n)
        kinds = torch.unique(texts, dim=1, return_inverse=True)[1]  # (n,)
        place = torch.arange(len(kinds), device=kinds.device)
        last = torch.zeros_like(kinds).scatter_reduce_(0, kinds, place, "amax", include_self=False)
        keep = torch.zeros_like(kinds, dtype=torch.bool)
        keep[last[kinds]] = True
        hard = self.hard.int().scatter_reduce(0, kinds, self.hard.int(), "amin", include_self=False)[kinds]
        return self._replace(hard=hard.bool()).rows(keep)


def join(*parts: Documents) -> Documents:
    """Several groups one after the other. All have guide vectors, or none has."""
    guides = [part.guide for part in parts if part.guide is not None]
    return Documents(
        torch.cat([part.values for part in parts], dim=1),
        torch.cat([part.content_ids for part in parts]),
        torch.cat([part.task for part in parts]),
        torch.cat([part.hard for part in parts]),
        torch.cat(guides) if guides else None,
    )


class _Newest:
    """The newest rows of what was appended, one after the other in a buffer that has room for twice as many.

    So a step writes its own rows and no others: once the buffer is full, those that are kept move to its
    begin, where they fit beside themselves.

    Args:
        dim: of the rows.
        most: rows that are kept.
    """

    def __init__(self, dim: int, most: int) -> None:
        self.dim, self.most, self.end = dim, most, 0
        self.room: Tensor | None = None
        self.given: Tensor | None = None

    def appended(self, held: Tensor | None, new: Tensor, count: int) -> Tensor:
        """The newest `count` of the rows held, which lie here or elsewhere, and of `new` (`most` at most)."""
        fresh = new.shape[self.dim]
        kept = count - fresh
        shape = list(new.shape)
        shape[self.dim] = ROOM * self.most
        room = self.room
        if room is None or held is not self.given or room.shape != torch.Size(shape):
            room = self.room = new.new_empty(shape)
            self.end = room.shape[self.dim]
        if self.end + fresh > room.shape[self.dim]:
            if held is not None and kept:
                room.narrow(self.dim, 0, kept).copy_(held.narrow(self.dim, held.shape[self.dim] - kept, kept))
            self.end = kept
        room.narrow(self.dim, self.end, fresh).copy_(new)
        self.end += fresh
        self.given = room.narrow(self.dim, self.end - count, count)
        return self.given


class Queue:
    """The last `size` distinct documents of past batches; it starts empty.

    Every rank is given the same documents in the same order, so all hold the same queue. It is no module: as
    a buffer DDP would send it from rank 0 at every step.

    Args:
        size: most documents held.

    Raises:
        InputError: if `size` is below 1.
    """

    def __init__(self, size: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"size must be a whole number of documents of at least 1, got {size!r}")
        self.size = size
        self._held: Documents | None = None  # oldest first, its vectors in the two below
        self._values, self._guide = _Newest(1, size), _Newest(0, size)

    def __len__(self) -> int:
        return 0 if self._held is None else len(self._held.content_ids)

    def documents(self, device: torch.device) -> Documents | None:
        """All that are held, oldest first; None while it is empty."""
        if self._held is not None and self._held.values.device != device:  # that of a checkpoint
            self._held = self._held.to_device(device)
        return self._held

    def push(self, new: Documents) -> None:
        """Take in the distinct ones of `new`; the oldest make room.

        Raises:
            ValueError: if they have other layers or another width than those held.
        """
        new = Documents._make(None if part is None else part.detach() for part in new.distinct())
        held = self.documents(new.values.device)
        if held is not None and held.values[:, :1].shape != new.values[:, :1].shape:
            was, now = held.values.shape, new.values.shape
            raise ValueError(f"the queue holds {was[0]} layers x {was[2]}, got {now[0]} x {now[2]}")
        if len(new.content_ids) > self.size:
            new = new.rows(torch.arange(len(new.content_ids))[-self.size :])
        count = min(self.size, len(self) + len(new.content_ids))
        values = self._values.appended(None if held is None else held.values, new.values, count)
        guide = None
        if new.guide is not None:
            guide = self._guide.appended(None if held is None else held.guide, new.guide, count)
        ids, task, hard = (
            part if before is None else torch.cat([before, part])[-count:]
            for part, before in zip(new[1:4], (None,) * 3 if held is None else held[1:4], strict=True)
        )
        self._held = Documents(values, ids, task, hard, guide)

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        if self._held is None:
            return {"documents": None}
        return {"documents": tuple(part if part is None else part.clone() for part in self._held)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        held = state["documents"]
        self._held = None if held is None else Documents(*held)
