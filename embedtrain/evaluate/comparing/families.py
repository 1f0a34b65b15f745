"""Many comparisons, tasks or seeds together: corrected p, Wilcoxon over tasks, intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from embedtrain.evaluate.comparing.statistics import Comparison, bca_interval
from embedtrain.types import InputError

Correction = Literal["holm", "bh", "bonferroni", "none"]
CORRECTIONS: tuple[Correction, ...] = ("holm", "bh", "bonferroni", "none")


class Seeds(NamedTuple):
    """The same measurement of runs that differ in their seed."""

    n: int
    mean: float
    sd: float | None  # of the sample, n - 1 below; None for one seed
    low: float | None
    high: float | None


class Signed(NamedTuple):
    """Wilcoxon's signed-rank test over tasks."""

    n: int  # tasks with a difference that is not zero
    statistic: float
    p: float  # two-sided
    smallest: float  # the least p that so many tasks can give


def correct(p_values: Sequence[float], method: Correction) -> list[float]:
    """Corrected p values in the given order; compare each with alpha as before.

    Bonferroni and Holm (1979) hold the chance of any false finding, Benjamini-Hochberg (1995) the expected
    share of false ones among the findings.

    Raises:
        InputError: an unknown method.
    """
    if method not in CORRECTIONS:
        raise InputError(f"correction must be one of {', '.join(CORRECTIONS)}, got {method!r}")
    given = np.asarray(p_values, dtype=np.float64)
    count, order = len(given), np.argsort(given, kind="stable")
    ranked = given[order]
    if method == "bonferroni":
        ranked = ranked * count
    elif method == "holm":
        ranked = np.maximum.accumulate(ranked * np.arange(count, 0, -1))
    elif method == "bh":
        ranked = np.minimum.accumulate((ranked * count / np.arange(1, count + 1))[::-1])[::-1]
    found = np.empty(count)
    found[order] = np.minimum(ranked, 1.0)
    return [float(value) for value in found]


def signed_rank(differences: Sequence[float]) -> Signed:
    """Wilcoxon's signed-rank test of one difference per task, two-sided; zeros are left out (Wilcoxon 1945).

    Exact for few tasks. p is 1 where nothing differs. With 5 tasks no p is below 0.0625, with 6 none below
    0.031: `smallest` says so.
    """
    moving = np.asarray([value for value in differences if value != 0], dtype=np.float64)
    if not len(moving):
        return Signed(0, 0.0, 1.0, 1.0)
    found = stats.wilcoxon(moving)
    return Signed(
        len(moving), float(found.statistic), float(found.pvalue), min(1.0, float(2.0 ** (1 - len(moving))))
    )


def over_seeds(
    values: Sequence[float], *, level: float = 0.95, method: Literal["t", "bootstrap"] = "t", seed: int = 0
) -> Seeds:
    """n, mean, standard deviation and interval of the mean over seeds.

    The bootstrap of fewer than about 10 seeds is too narrow; "t" is right for any number of them if the
    scores are normal over seeds.

    Raises:
        InputError: no value, or an unknown method.
    """
    given = np.asarray(values, dtype=np.float64)
    if not len(given):
        raise InputError("no seed to aggregate")
    average = float(given.mean())
    if method not in ("t", "bootstrap"):
        raise InputError(f"the interval over seeds must be t or bootstrap, got {method!r}")
    if len(given) == 1:
        return Seeds(1, average, None, None, None)
    deviation = float(given.std(ddof=1))
    if method == "t":
        half = float(stats.t.ppf((1 + level) / 2, len(given) - 1)) * deviation / len(given) ** 0.5
        return Seeds(len(given), average, deviation, average - half, average + half)
    rows = np.random.default_rng(seed).integers(0, len(given), size=(10_000, len(given)))
    left_out = (given.sum() - given) / (len(given) - 1)
    low, high = bca_interval(given[rows].mean(axis=1), average, left_out, level)
    return Seeds(len(given), average, deviation, low, high)


def between_seeds(
    first: Mapping[str, float], second: Mapping[str, float], *, level: float = 0.95
) -> Comparison:
    """The mean of the second seeds against that of the first, seed name -> score; n is the fewer seeds.

    The same seeds on both sides are paired (t of their differences), others are not (Welch 1947).

    Raises:
        InputError: fewer than two seeds on a side: one run has no spread to judge by.
    """
    if min(len(first), len(second)) < 2:
        raise InputError(
            f"a comparison over seeds needs at least 2 on each side, got {len(first)} and {len(second)}"
        )
    a, b = np.asarray(list(first.values())), np.asarray(list(second.values()))
    if set(first) == set(second):
        change = np.asarray([second[name] - first[name] for name in first])
        spread, freedom, test = float(change.std(ddof=1)), len(change) - 1.0, "paired t over seeds"
        error = spread / len(change) ** 0.5
    else:
        parts = [float(one.var(ddof=1)) / len(one) for one in (a, b)]
        below = sum(part**2 / (len(one) - 1) for part, one in zip(parts, (a, b), strict=True))
        spread, test = float(a.var(ddof=1) / 2 + b.var(ddof=1) / 2) ** 0.5, "Welch's t over seeds"
        error, freedom = sum(parts) ** 0.5, sum(parts) ** 2 / below if below > 0 else 1.0
    means = float(a.mean()), float(b.mean())
    difference, n = means[1] - means[0], min(len(a), len(b))
    if error == 0:
        p = float(difference == 0)
        return Comparison(*means, difference, difference, difference, p, 0.0, "Cohen's d", test, n)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(difference) / error, freedom))
    ends = difference - half, difference + half
    return Comparison(*means, difference, *ends, p, difference / spread, "Cohen's d", test, n)
