"""Statistics of many resamples of the same items, for all samples of them at once, and sign flips.

What is drawn is a function of the items' parts and a seed: each sample's statistic is computed once, and any
two samples are compared by subtracting.

Letters: n items, R resamples, P pairs of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from embedtrain.evaluation.per_item.weighted import Floats, Sample, under
from embedtrain.types import InputError

_AT_ONCE = 2**21  # numbers of a block of resamples: 16 MiB
_BLOCKS = 500  # most estimates of the jackknife: of more items it leaves out blocks
EXACT = 2**13  # most sign patterns that are all counted: 13 items


def resampled(samples: Sequence[Sample], resamples: int, seed: int) -> list[Floats]:
    """The statistic of each sample under the same R resamples, (R,); items are drawn within their part.

    NaN where a resample does not define the statistic (no positive, all gold equal).
    """
    drawn = [under(samples, counts) for counts in drawn_counts(samples[0].part, resamples, seed)]
    return [np.concatenate(parts) for parts in zip(*drawn, strict=True)]


def left_out(samples: Sequence[Sample]) -> list[Floats]:
    """The statistic of each sample without each item, or each of 500 blocks of items: (min(n, 500),)."""
    first, count = samples[0], len(samples[0].part)
    if first.statistic == "mean" and first.part.max() == 0:
        columns = [sample.values[:, 0] for sample in samples]
        return [np.asarray((values.sum() - values) / max(1, count - 1)) for values in columns]
    blocks, numbers = np.arange(count) % min(count, _BLOCKS), np.arange(min(count, _BLOCKS))
    found = []
    for start in range(0, len(numbers), max(1, _AT_ONCE // count)):
        chunk = numbers[start : start + max(1, _AT_ONCE // count)]
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(under(samples, (blocks != chunk[:, None]).astype(np.float64)))
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def sign_flips(differences: Floats, resamples: int, seed: int) -> list[tuple[float, str]]:
    """Two-sided p of the mean of each column of paired differences (n, P), and which test gave it.

    Were the models alike, each difference would as well have the other sign. Of up to 13 non-zero ones all
    patterns are counted; of more, `resamples` random ones, of which the observed is one (Phipson and Smyth
    2010).
    """
    rows = differences[(differences != 0).any(axis=1)]  # a zero has no sign to flip
    moving = (rows != 0).sum(axis=0)  # (P,)
    few = 2.0**moving <= EXACT
    found: list[tuple[float, str]] = [(1.0, "exact sign-flip permutation")] * rows.shape[1]
    for place in np.flatnonzero(few):
        found[place] = (_exact(rows[rows[:, place] != 0, place]), "exact sign-flip permutation")
    many = np.flatnonzero(~few)
    for place, p in zip(many, _random(rows[:, many], resamples, seed), strict=True):
        found[place] = (float(p), "sign-flip permutation")
    return found


def _exact(moving: Floats) -> float:
    patterns = _all_signs(len(moving))
    return float(np.mean(np.abs(patterns @ moving) >= _reached(moving)))


def _random(rows: Floats, resamples: int, seed: int) -> Floats:
    """P of each column of (n, P), (P,)."""
    generator, hits = np.random.default_rng(seed), np.zeros(rows.shape[1])
    total, reached = rows.sum(axis=0), _reached(rows)
    for size in block_sizes(resamples, len(rows)) if rows.size else ():
        signs = generator.integers(0, 2, size=(size, len(rows)), dtype=np.int8)
        # with signs 2 s - 1 in {-1, 1}: the sum is 2 s @ d - sum(d)
        hits += np.sum(np.abs(2 * (signs @ rows) - total) >= reached, axis=0)
    return np.asarray((hits + 1) / (resamples + 1))


def _reached(rows: Floats) -> Floats:
    """What a sum reaches to be as far as the observed: sums in another order differ in their last digits."""
    return np.asarray(np.abs(rows.sum(axis=0)) * (1 - 1e-10))


def _all_signs(count: int) -> Floats:
    """Every pattern of signs, (2^count, count)."""
    numbers = np.arange(2**count)
    return np.asarray(2 * (numbers[:, None] >> np.arange(count) & 1) - 1, dtype=np.float64)


def drawn_counts(part: NDArray[np.int64], resamples: int, seed: int) -> Iterator[Floats]:
    """Counts of items drawn with replacement within their part, blocks of (r, n)."""
    generator, count = np.random.default_rng(seed), len(part)
    rows = [np.flatnonzero(part == number) for number in range(int(part.max()) + 1)]
    for size in block_sizes(resamples, count):
        counts = np.zeros((size, count))
        for members in rows:
            drawn = generator.integers(0, len(members), size=(size, len(members)))
            drawn += np.arange(size)[:, None] * len(members)
            flat = np.bincount(drawn.ravel(), minlength=size * len(members))
            counts[:, members] = flat.reshape(size, len(members))
        yield counts


def block_sizes(resamples: int, count: int) -> Iterator[int]:
    """How many resamples of `count` items are in memory at once, block by block."""
    step = max(1, _AT_ONCE // max(1, count))
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def require_same_items(first: Sample, second: Sample) -> None:
    """Raises InputError where two samples cannot be paired."""
    if first.statistic != second.statistic or first.part.shape != second.part.shape:
        raise InputError(
            f"{len(first.part)} items of a {first.statistic} cannot be paired with "
            f"{len(second.part)} of a {second.statistic}"
        )
    if not (np.array_equal(first.part, second.part) and np.array_equal(first.gold, second.gold)):
        raise InputError(
            "the two samples have other parts or other gold values, so they are not the same items"
        )
