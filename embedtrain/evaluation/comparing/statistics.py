"""Whether two sets of per-item values differ: paired bootstrap intervals and paired permutation tests.

Both models answered the same items, so an item is drawn, or its two answers exchanged, for both at once; what
is hard for both then cancels. Everything is a function of the values and a seed.

Letters: n items, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from embedtrain.evaluation.per_item.weighted import Floats, Sample
from embedtrain.types import InputError

IntervalKind = Literal["bca", "percentile"]
Verdict = Literal["better", "worse", "not distinguishable"]
_AT_ONCE = 2**21  # numbers of a block of resamples: 16 MiB
_BLOCKS = 500  # most estimates of the jackknife: of more items it leaves out blocks
EXACT = 2**13  # most sign patterns that are all counted: 13 items


class Settings(NamedTuple):
    """How two samples are compared."""

    resamples: int = 5000
    level: float = 0.95  # of the interval
    interval: IntervalKind = "bca"
    seed: int = 0


class Comparison(NamedTuple):
    """The second sample against the first."""

    first: float
    second: float
    difference: float  # second - first, in the units of the score
    low: float
    high: float
    p: float  # two-sided, not corrected
    effect: float
    effect_name: str
    test: str
    n: int


def compare(first: Sample, second: Sample, settings: Settings = Settings()) -> Comparison:  # noqa: B008 (a NamedTuple is constant)
    """The difference of two samples of the same items, its bootstrap interval and its two-sided p.

    p comes from the sign-flip permutation test where the score is a mean, from the bootstrap where it is a
    correlation or a precision, whose value of one item is not defined.

    Raises:
        InputError: the samples have different items or are of different statistics.
    """
    _same_items(first, second)
    estimate = second.score() - first.score()
    drawn = bootstrap(first, second, settings.resamples, settings.seed)
    low, high = _interval(first, second, drawn, estimate, settings)
    if first.statistic == "mean":
        p, test = sign_flip(_contributions(first, second), settings.resamples, settings.seed)
    else:
        p, test = bootstrap_p(drawn), "paired bootstrap"
    effect, name = _effect(first, second)
    return Comparison(
        first.score(), second.score(), estimate, low, high, p, effect, name, test, len(first.part)
    )


def verdict(difference: float, p: float, alpha: float) -> Verdict:
    """What may be said of the second model, given the (corrected) p and the level alpha."""
    if p >= alpha or difference == 0:
        return "not distinguishable"
    return "better" if difference > 0 else "worse"


def bootstrap(first: Sample, second: Sample, resamples: int, seed: int) -> Floats:
    """The difference (second - first) of R paired resamples, (R,); items are drawn within their part.

    Resamples that do not define the statistic (no positive, all gold equal) are left out.

    Raises:
        InputError: no resample defines it.
    """
    draws = [_difference(first, second, counts) for counts in drawn_counts(first.part, resamples, seed)]
    found = np.concatenate(draws)
    found = found[~np.isnan(found)]
    if not len(found):
        raise InputError(
            f"no {first.statistic} of these {len(first.part)} items exists; the gold is constant"
        )
    return found


def percentile_interval(drawn: Floats, level: float) -> tuple[float, float]:
    """The middle `level` of the bootstrap distribution (Efron 1979)."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bca_interval(drawn: Floats, estimate: float, left_out: Floats, level: float) -> tuple[float, float]:
    """The percentile interval corrected for bias and skewness (Efron 1987, equations 6.6 and 6.7).

    `left_out` (n,) are the estimates without one item each (or one block). Where the distribution is a
    single number the interval is that number.
    """
    below = (np.mean(drawn < estimate) + np.mean(drawn <= estimate)) / 2
    if drawn.min() == drawn.max() or not 0 < below < 1:
        return percentile_interval(drawn, level)
    bias = norm.ppf(below)
    pull = np.nanmean(left_out) - left_out[~np.isnan(left_out)]
    spread = np.sum(pull**2) ** 1.5
    skew = np.sum(pull**3) / (6 * spread) if spread > 0 else 0.0
    ends = norm.ppf([(1 - level) / 2, (1 + level) / 2])
    shares = norm.cdf(bias + (bias + ends) / (1 - skew * (bias + ends)))
    low, high = np.quantile(drawn, shares)
    return float(low), float(high)


def bootstrap_p(drawn: Floats) -> float:
    """Two-sided p: twice the smaller tail of the bootstrap distribution on the other side of zero.

    It is the level at which the percentile interval begins to hold zero; with R resamples never below
    2 / (R + 1).
    """
    tail = min(int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0)))
    return min(1.0, 2 * (tail + 1) / (len(drawn) + 1))


def sign_flip(differences: Floats, resamples: int, seed: int) -> tuple[float, str]:
    """Two-sided p of the mean of paired differences (n,), and which test gave it.

    Were the models alike, each difference would as well have the other sign. Of up to 13 non-zero ones all
    patterns are counted; of more, `resamples` random ones, of which the observed is one (Phipson and Smyth
    2010).
    """
    moving = differences[differences != 0]  # a zero has no sign to flip
    observed = abs(moving.sum())
    # sums of the same numbers in another order differ in their last digits; those are ties
    reached = observed * (1 - 1e-10)
    if 2 ** len(moving) <= EXACT:
        patterns = _all_signs(len(moving))
        return float(np.mean(np.abs(patterns @ moving) >= reached)), "exact sign-flip permutation"
    generator = np.random.default_rng(seed)
    hits = 0
    for size in _block_sizes(resamples, len(moving)):
        signs = generator.integers(0, 2, size=(size, len(moving)), dtype=np.int8)
        # with signs 2 s - 1 in {-1, 1}: the sum is 2 s @ d - sum(d)
        hits += int(np.sum(np.abs(2 * (signs @ moving) - moving.sum()) >= reached))
    return (hits + 1) / (resamples + 1), "sign-flip permutation"


def _all_signs(count: int) -> Floats:
    """Every pattern of signs, (2^count, count)."""
    numbers = np.arange(2**count)
    return np.asarray(2 * (numbers[:, None] >> np.arange(count) & 1) - 1, dtype=np.float64)


def _contributions(first: Sample, second: Sample) -> Floats:
    """What each item adds to the difference of two means over parts, (n,)."""
    sizes = np.bincount(first.part)
    weight = 1 / (sizes[first.part] * len(sizes))
    return np.asarray((second.values[:, 0] - first.values[:, 0]) * weight)


def _effect(first: Sample, second: Sample) -> tuple[float, str]:
    """The size of the difference without its units."""
    if first.statistic == "mean":
        differences = second.values[:, 0] - first.values[:, 0]
        deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
        return (float(differences.mean()) / deviation if deviation > 0 else 0.0), "Cohen's d_z"
    a, b = np.clip([first.score(), second.score()], -1 + 1e-12, 1 - 1e-12)
    if first.statistic == "average_precision":
        return float(2 * np.arcsin(np.sqrt(b)) - 2 * np.arcsin(np.sqrt(a))), "Cohen's h"
    return float(np.arctanh(b) - np.arctanh(a)), "Cohen's q"


def _interval(
    first: Sample, second: Sample, drawn: Floats, estimate: float, settings: Settings
) -> tuple[float, float]:
    if settings.interval == "percentile":
        return percentile_interval(drawn, settings.level)
    return bca_interval(drawn, estimate, _jackknife(first, second), settings.level)


def _jackknife(first: Sample, second: Sample) -> Floats:
    """The difference without each item, or without each of 500 blocks of items: (min(n, 500),)."""
    count = len(first.part)
    if first.statistic == "mean" and first.part.max() == 0:
        each = second.values[:, 0] - first.values[:, 0]
        return np.asarray((each.sum() - each) / max(1, count - 1))
    blocks = np.arange(count) % min(count, _BLOCKS)
    numbers = np.arange(min(count, _BLOCKS))
    found = []
    for start in range(0, len(numbers), max(1, _AT_ONCE // count)):
        chunk = numbers[start : start + max(1, _AT_ONCE // count)]
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(_difference(first, second, (blocks != chunk[:, None]).astype(np.float64)))
    return np.concatenate(found)


def _difference(first: Sample, second: Sample, counts: Floats) -> Floats:
    return second.under(counts) - first.under(counts)


def drawn_counts(part: NDArray[np.int64], resamples: int, seed: int) -> Iterator[Floats]:
    """Counts of items drawn with replacement within their part, blocks of (r, n)."""
    generator, count = np.random.default_rng(seed), len(part)
    rows = [np.flatnonzero(part == number) for number in range(int(part.max()) + 1)]
    for size in _block_sizes(resamples, count):
        counts = np.zeros((size, count))
        for members in rows:
            drawn = generator.integers(0, len(members), size=(size, len(members)))
            drawn += np.arange(size)[:, None] * len(members)
            flat = np.bincount(drawn.ravel(), minlength=size * len(members))
            counts[:, members] = flat.reshape(size, len(members))
        yield counts


def _block_sizes(resamples: int, count: int) -> Iterator[int]:
    step = max(1, _AT_ONCE // max(1, count))
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _same_items(first: Sample, second: Sample) -> None:
    if first.statistic != second.statistic or first.part.shape != second.part.shape:
        raise InputError(
            f"{len(first.part)} items of a {first.statistic} cannot be paired with "
            f"{len(second.part)} of a {second.statistic}"
        )
    if not (np.array_equal(first.part, second.part) and np.array_equal(first.gold, second.gold)):
        raise InputError(
            "the two samples have other parts or other gold values, so they are not the same items"
        )
