"""The statistics that scores are made of, for many resamples of the same items at once.

A resample is how often it holds each item: a row of counts. Instead of copying the drawn items and sorting
them anew, the items are sorted once and the counts run through that order, so that a thousand Spearman
correlations of a thousand pairs take tens of milliseconds. Each value is that of the statistic on the copied
items, ties included.

Letters: n items, k alternatives of which the best counts, R resamples, P parts (languages of a task), C
columns of values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Weighted = Callable[[Floats, Floats, Floats], Floats]  # (C, n) values, (n,) gold, (R, n) counts -> (C, R)


class Sample(NamedTuple):
    """The items of one cell: what its score is made of."""

    statistic: str  # a key of STATISTICS
    values: (
        Floats  # (n, k) one number an item: a metric of a query, a similarity of a pair; the best of k counts
    )
    gold: Floats  # (n,) what the values are held against; zeros for a mean, which needs none
    part: NDArray[np.int64]  # (n,) 0..P-1; the score is the plain mean over parts

    def score(self) -> float:
        """The statistic of all items: what the task's score is."""
        return float(self.under(np.ones((1, len(self.part))))[0])

    def under(self, counts: Floats) -> Floats:
        """The statistic of each resample: (R, n) counts to (R,). NaN where a resample does not define it."""
        return under([self], counts)[0]


def under(samples: Sequence[Sample], counts: Floats) -> list[Floats]:
    """`Sample.under` of samples of the same items and statistic; what they share is computed once."""
    first, sizes = samples[0], [sample.values.shape[1] for sample in samples]
    columns = np.concatenate([sample.values.T for sample in samples])  # (C, n)
    parts = []
    for part in range(int(first.part.max()) + 1):
        rows = np.flatnonzero(first.part == part)
        of = STATISTICS[first.statistic](columns[:, rows], first.gold[rows], counts[:, rows])
        parts.append(np.stack([each.max(axis=0) for each in np.split(of, np.cumsum(sizes)[:-1])]))
    return list(np.asarray(np.mean(parts, axis=0), dtype=np.float64))


def mean(values: Floats, gold: Floats, counts: Floats) -> Floats:
    """Arithmetic mean of each resample, (C, R)."""
    total = counts.sum(axis=1)
    return np.stack([counts @ column / total for column in values])


def pearson(values: Floats, gold: Floats, counts: Floats) -> Floats:
    """Pearson's correlation of values and gold, (C, R); NaN where either is constant."""
    # centred first: E[x²] - E[x]² of similarities around 0.9 would lose half the digits
    right = np.broadcast_to(gold - gold.mean(), counts.shape)
    centred = (np.broadcast_to(column - column.mean(), counts.shape) for column in values)
    return np.stack([_correlation(left, right, counts) for left in centred])


def spearman(values: Floats, gold: Floats, counts: Floats) -> Floats:
    """Spearman's correlation, equal values sharing their mean rank, (C, R)."""
    right = _ranks(gold, counts)
    return np.stack([_correlation(_ranks(column, counts), right, counts) for column in values])


def average_precision(values: Floats, gold: Floats, counts: Floats) -> Floats:
    """Area under the precision-recall steps, gold 1 for a positive, (C, R); NaN without a positive.

    Equal values are one step, as in scikit-learn's `average_precision_score`.
    """
    return np.stack([_precision(column, gold, counts) for column in values])


def _precision(values: Floats, gold: Floats, counts: Floats) -> Floats:
    order, starts, _ = _groups(-values)
    drawn = counts[:, order]
    hits = np.add.reduceat(drawn * gold[order], starts, axis=1)  # (R, groups)
    seen = np.cumsum(np.add.reduceat(drawn, starts, axis=1), axis=1)
    precision = np.cumsum(hits, axis=1) / np.maximum(seen, 1)
    total = hits.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray((hits * precision).sum(axis=1) / np.where(total > 0, total, np.nan))


STATISTICS: Mapping[str, Weighted] = {
    "mean": mean,
    "pearson": pearson,
    "spearman": spearman,
    "average_precision": average_precision,
}


def _groups(values: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ascending order (n,), where each run of equal values starts in it, and the run of each place (n,)."""
    order = np.argsort(values, kind="stable")
    new = np.r_[True, np.diff(values[order]) != 0]
    return order, np.flatnonzero(new), np.cumsum(new) - 1


def _ranks(values: Floats, counts: Floats) -> Floats:
    """The mean rank of each item among the drawn ones, (R, n)."""
    order, starts, group = _groups(values)
    drawn, alone = counts[:, order], len(starts) == len(values)
    size = drawn if alone else np.add.reduceat(drawn, starts, axis=1)  # (R, groups)
    middle = np.cumsum(size, axis=1) - (size - 1) / 2
    ranks = np.empty_like(counts)
    ranks[:, order] = middle if alone else middle[:, group]
    return ranks


def _correlation(left: Floats, right: Floats, counts: Floats) -> Floats:
    """Pearson's correlation of rows, each pair weighted by its count: (R, n) x 3 to (R,)."""
    total = counts.sum(axis=1, keepdims=True)
    left = left - (counts * left).sum(axis=1, keepdims=True) / total
    right = right - (counts * right).sum(axis=1, keepdims=True) / total
    weighted = counts * left
    norm = np.sqrt((weighted * left).sum(axis=1) * (counts * right * right).sum(axis=1))
    # what is constant but for rounding has no correlation
    flat = norm <= 1e-12 * counts.shape[1] * np.abs(left).max() * np.abs(right).max()
    return np.where(flat, np.nan, (weighted * right).sum(axis=1) / np.where(flat, 1.0, norm))
