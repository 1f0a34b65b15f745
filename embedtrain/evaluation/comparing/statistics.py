"""Whether two sets of per-item values differ: paired bootstrap intervals and paired permutation tests.

Both models answered the same items, so an item is drawn, or its two answers exchanged, for both at once; what
is hard for both then cancels. Everything is a function of the values and a seed.

Letters: n items, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import norm

from embedtrain.evaluation.comparing.resampling import left_out, require_same_items, resampled, sign_flips
from embedtrain.evaluation.per_item.weighted import Floats, Sample
from embedtrain.types import InputError

IntervalKind = Literal["bca", "percentile"]
Verdict = Literal["better", "worse", "not distinguishable"]


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
    error: float = 0.0  # standard error of the difference: the spread of its bootstrap


def compare(first: Sample, second: Sample, settings: Settings = Settings()) -> Comparison:  # noqa: B008 (a NamedTuple is constant)
    """The difference of two samples of the same items, its bootstrap interval and its two-sided p.

    Raises:
        InputError: the samples have different items or are of different statistics.
    """
    return compare_all([first, second], [(0, 1)], settings)[0]


def compare_all(
    samples: Sequence[Sample], pairs: Sequence[tuple[int, int]], settings: Settings
) -> list[Comparison]:
    """Pairs of samples of the same items, each sample resampled once; pairs are places in `samples`.

    p comes from the sign-flip permutation test where the score is a mean, from the bootstrap where it is a
    correlation or a precision, whose value of one item is not defined.

    Raises:
        InputError: the samples have different items or are of different statistics.
    """
    for sample in samples[1:]:
        require_same_items(samples[0], sample)
    scores = [sample.score() for sample in samples]
    drawn = resampled(samples, settings.resamples, settings.seed)
    without = left_out(samples) if settings.interval == "bca" else None
    moved = [_defined(samples[one], drawn[other] - drawn[one]) for one, other in pairs]
    if samples[0].statistic == "mean":
        columns = [_contributions(samples[one], samples[other]) for one, other in pairs]
        tests = sign_flips(np.stack(columns, axis=1), settings.resamples, settings.seed)
    else:
        tests = [(bootstrap_p(each), "paired bootstrap") for each in moved]
    found = []
    for (one, other), each, test in zip(pairs, moved, tests, strict=True):
        difference = scores[other] - scores[one]
        if without is None:
            ends = percentile_interval(each, settings.level)
        else:
            ends = bca_interval(each, difference, without[other] - without[one], settings.level)
        effect = _effect(samples[one], samples[other], scores[one], scores[other])
        sizes = len(samples[0].part), float(each.std())
        found.append(
            Comparison(scores[one], scores[other], difference, *ends, test[0], *effect, test[1], *sizes)
        )
    return found


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
    one, other = resampled([first, second], resamples, seed)
    return _defined(first, other - one)


def _defined(sample: Sample, drawn: Floats) -> Floats:
    found = drawn[~np.isnan(drawn)]
    if not len(found):
        raise InputError(
            f"no {sample.statistic} of these {len(sample.part)} items exists; the gold is constant"
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


def _contributions(first: Sample, second: Sample) -> Floats:
    """What each item adds to the difference of two means over parts, (n,)."""
    sizes = np.bincount(first.part)
    weight = 1 / (sizes[first.part] * len(sizes))
    return np.asarray((second.values[:, 0] - first.values[:, 0]) * weight)


def _effect(first: Sample, second: Sample, one: float, other: float) -> tuple[float, str]:
    """The size of the difference of two scores without its units."""
    if first.statistic == "mean":
        differences = second.values[:, 0] - first.values[:, 0]
        deviation = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
        return (float(differences.mean()) / deviation if deviation > 0 else 0.0), "Cohen's d_z"
    a, b = np.clip([one, other], -1 + 1e-12, 1 - 1e-12)
    if first.statistic == "average_precision":
        return float(2 * np.arcsin(np.sqrt(b)) - 2 * np.arcsin(np.sqrt(a))), "Cohen's h"
    return float(np.arctanh(b) - np.arctanh(a)), "Cohen's q"
