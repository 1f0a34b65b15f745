"""The k best documents of each query, exactly, a block of documents at a time.

`top` takes the largest of the similarities of a block, `Best.merged` those of two blocks; equal ones are
decided by an order of documents, so that the result does not depend on the blocks.

`nearest` also removes what float32 adds. Similarities round differently with every block size and library. So
those of more candidates than are wanted are made again in float64, where a product of float16 vectors of
length one has no rounding at all (its terms are multiples of 2^-48 and its partial sums stay below 2). The
result holds if no document that was not fetched can belong into it, by the bound on float32 sums; otherwise
more are fetched. So rows do not depend on machine or block size, ties included.

Letters: Q queries, N documents, m fetched, k wanted, G width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.devices import exact_float32, has_room
from embedtrain.transfers import moved

SPARE = 16  # candidates fetched beyond those wanted, so that few queries need a second look
RESCORED = 64  # queries whose candidates are scored in float64 at a time: 70 MB at m = 300, G = 384
ROUNDING = 2.0**-24  # of one float32 operation
LONGEST = 1.01  # of a vector of length one once it is rounded to float16

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Order = Callable[[Tensor], Tensor]  # numbers of documents to their places among all: the larger wins a tie


class Rows(NamedTuple):
    """n vectors, in memory or on disk."""

    width: int  # G
    take: Callable[[Integers], NDArray[np.generic]]  # row numbers (m,) to (m, G) float16 or float32

    def blocks(self, stop: int, size: int) -> Iterator[tuple[int, Tensor]]:
        """(first row, (m, G) float32) of rows 0..stop-1, `size` rows at a time but for the last."""
        for first in range(0, stop, size):
            numbers = np.arange(first, min(first + size, stop), dtype=np.int64)
            yield first, torch.from_numpy(self.take(numbers)).float()


def in_memory(array: NDArray[np.generic]) -> Rows:
    """The rows of one array (n, G)."""
    return Rows(array.shape[1], lambda numbers: array[numbers])


class Best(NamedTuple):
    """The best documents of each query so far; of a query they have no promised sequence."""

    keys: Tensor  # (Q, k) float32 similarities that decide
    numbers: Tensor  # (Q, k) int64 documents
    values: Tensor  # (Q, k) float32 similarities that are reported; `keys` themselves without rescoring

    def merged(self, other: Best, order: Order, count: int) -> Best:
        """The best `count` of both."""
        keys, numbers, values = (torch.cat(pair, dim=1) for pair in zip(self, other, strict=True))
        columns = largest(keys, numbers, order, count)
        return Best(*(part.gather(1, columns) for part in (keys, numbers, values)))


def no_best(queries: int, device: torch.device | None = None) -> Best:
    """No document yet."""
    none = torch.empty(queries, 0, device=device)
    return Best(none, none.long(), none)


def top(similarities: Tensor, first: int, order: Order, count: int) -> Best:
    """The best `count` of a block of documents whose numbers start at `first`; similarities are (Q, N)."""
    numbers = torch.arange(first, first + similarities.shape[1], device=similarities.device)
    columns = largest(similarities, numbers, order, count)
    keys = similarities.gather(1, columns)
    return Best(keys, numbers[columns], keys)


def largest(values: Tensor, numbers: Tensor, order: Order, count: int) -> Tensor:
    """Columns (Q, count) of the largest of each row of (Q, N), or of all; in no promised sequence.

    Of values equal to the last, those win whose document, `numbers` (N,) or (Q, N), has the larger place.
    torch's topk takes any of them, so that its choice would depend on the blocks.
    """
    if count >= values.shape[1]:
        return torch.arange(values.shape[1], device=values.device).expand(values.shape)
    most, columns = values.topk(count + 1, dim=1)
    columns = columns[:, :count].clone()
    for row in (most[:, count - 1] == most[:, count]).nonzero()[:, 0].tolist():
        border = most[row, count]
        above = (values[row] > border).nonzero()[:, 0]
        equal = (values[row] == border).nonzero()[:, 0]
        place = order((numbers if numbers.dim() == 1 else numbers[row])[equal])
        columns[row] = torch.cat([above, equal[place.topk(count - len(above)).indices]])
    return columns


class Fetch(Protocol):
    """Searches candidates."""

    pool: int  # documents 0..pool-1 are candidates
    complete: bool  # whether it never misses one of the m best by its own scores

    def __call__(self, queries: NDArray[np.float32], m: int) -> tuple[NDArray[np.float32], Integers]:
        """(Q, m) scores and document numbers, -1 where there are fewer; m is at most the pool."""
        ...


class Exact:
    """All similarities by torch; the lower number wins a tie. A `Fetch`."""

    complete = True
    block = 8_192  # documents at a time on a CPU: with 1,024 queries 32 MB of scores
    device_block = 65_536  # the same on a device: 256 MB

    def __init__(self, documents: Rows, pool: int, device: str | torch.device = "cpu") -> None:
        self.documents, self.pool, self.device = documents, pool, torch.device(device)
        self._kept: dict[int, Tensor] = {}  # on a device, by their first document: in the dtype of the store

    def __call__(self, queries: NDArray[np.float32], m: int) -> tuple[NDArray[np.float32], Integers]:
        """As `Fetch`."""
        asked = moved(torch.from_numpy(queries), self.device)
        best = no_best(len(asked), self.device)
        for first, block in self._blocks():
            with exact_float32():
                similarities = asked @ block.T
            best = best.merged(top(similarities, first, torch.neg, m), torch.neg, m)
        return best.keys.cpu().numpy(), best.numbers.cpu().numpy()

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        """All documents (m, G) in float32; those that a device has room for go there once and stay."""
        if self.device.type == "cpu":
            yield from self.documents.blocks(self.pool, self.block)
            return
        for first in range(0, self.pool, self.device_block):
            block = self._kept.get(first)
            if block is None:
                numbers = np.arange(first, min(first + self.device_block, self.pool), dtype=np.int64)
                block = moved(torch.from_numpy(self.documents.take(numbers)), self.device)
                if has_room(self.device, block.nbytes):
                    self._kept[first] = block
            yield first, block.float()


class Nearest(NamedTuple):
    """The k best of some queries."""

    numbers: Integers  # (Q, k) document, -1 where there are fewer
    scores: Floats  # (Q, k) falling; -inf where there are fewer


def nearest(
    queries: NDArray[np.generic], documents: Rows, banned: Sequence[Integers], k: int, fetch: Fetch
) -> Nearest:
    """The k best documents of the queries by (score falling, number rising), none of those banned for each.

    Args:
        queries: (Q, G) in the dtype in which they are stored.
        documents: what `fetch` searches.
        banned: for each query, sorted document numbers that are no candidates.
        k: 1 or more.
        fetch: searches; one that is not complete may miss documents, and then so does this.
    """
    result = Nearest(
        np.full((len(queries), k), -1, dtype=np.int64), np.full((len(queries), k), -np.inf, dtype=np.float64)
    )
    wanted = np.array([_power_of_two(k + SPARE + len(out)) for out in banned], dtype=np.int64)
    uncertain = np.arange(len(queries))
    while len(uncertain):
        m = int(wanted[uncertain].min())
        rows = uncertain[wanted[uncertain] == m]
        near, numbers = fetch(np.asarray(queries[rows], dtype=np.float32), min(m, fetch.pool))
        # of each of two float32 scores: the largest error of a sum of G products of such vectors
        slack = 2 * documents.width * ROUNDING * LONGEST**2
        certain = np.full(len(rows), m >= fetch.pool or not fetch.complete)
        for start in range(0, len(rows), RESCORED):
            some = slice(start, start + RESCORED)
            place, candidates = rows[some], numbers[some]  # candidates (Q', m)
            taken = documents.take(np.maximum(candidates, 0).ravel()).reshape(
                *candidates.shape, documents.width
            )
            scores = pair_scores(queries[place], taken)
            scores[(candidates < 0) | _banned(candidates, [banned[row] for row in place])] = -np.inf
            order = np.lexsort((candidates, -scores), axis=-1)[:, :k]
            best = np.take_along_axis(scores, order, axis=1)  # (Q', k or fewer)
            chosen = np.where(np.isfinite(best), np.take_along_axis(candidates, order, axis=1), -1)
            result.scores[place, : best.shape[1]], result.numbers[place, : best.shape[1]] = best, chosen
            if best.shape[1] == k:
                certain[some] |= best[:, -1] > near[some].min(axis=1) + slack
        wanted[rows[~certain]] = m * 4
        uncertain = np.setdiff1d(uncertain, rows[certain])
    return result


def pair_scores(queries: NDArray[np.generic], documents: NDArray[np.generic]) -> Floats:
    """(Q, m) scores of queries (Q, G) with their own documents (Q, m, G), in float64.

    Exact for float16 vectors of length one. Others are rounded to 12 digits, below which the order of the
    sum would show.
    """
    left = torch.from_numpy(np.array(queries)).double()
    right = torch.from_numpy(np.array(documents)).double()
    scores: Floats = torch.bmm(right, left.unsqueeze(2))[:, :, 0].numpy()
    return scores if queries.dtype == np.float16 and documents.dtype == np.float16 else scores.round(12)


def _banned(numbers: Integers, banned: Sequence[Integers]) -> NDArray[np.bool_]:
    """(Q, m) bool, True where a query's candidate is banned for it."""
    span = int(numbers.max(initial=0)) + 1
    rows = np.repeat(np.arange(len(banned)), [len(out) for out in banned])
    out = np.concatenate([np.empty(0, dtype=np.int64), *banned])
    inside = out < span
    mine: Integers = np.arange(len(numbers))[:, None] * span + np.maximum(numbers, 0)
    return np.isin(mine, rows[inside] * span + out[inside])


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
