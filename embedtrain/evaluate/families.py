"""Many comparisons, tasks or seeds together: corrected p, Wilcoxon over tasks, intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from embedtrain.evaluate.statistics import bca_interval
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


class Contrast(NamedTuple):
    """The mean of some seeds against that of others."""

    difference: float
    low: float
    high: float
    p: float
    effect: float
    test: str


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


def between_seeds(first: dict[str, float], second: dict[str, float], *, level: float = 0.95) -> Contrast:
    """The mean of the second seeds minus that of the first, seed name -> score.

    The same seeds on both sides are paired (t of their differences), others are not (Welch 1947).

    Raises:
        InputError: fewer than two seeds on a side: one run has no spread to judge by.
    """
    if min(len(first), len(second)) < 2:
        raise InputError(
            f"a comparison over seeds needs at least 2 on each side, got {len(first)} and {len(second)}"
        )
    if set(first) == set(second):
        given = np.asarray([second[name] - first[name] for name in first])
        difference, error, freedom = (
            float(given.mean()),
            float(given.std(ddof=1)) / len(given) ** 0.5,
            len(given) - 1.0,
        )
        spread, test = float(given.std(ddof=1)), "paired t over seeds"
    else:
        a, b = np.asarray(list(first.values())), np.asarray(list(second.values()))
        parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
        difference, error = float(b.mean() - a.mean()), float(sum(parts)) ** 0.5
        below = parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1)
        freedom = float(sum(parts)) ** 2 / below if below > 0 else len(a) + len(b) - 2.0
        spread, test = float(a.var(ddof=1) / 2 + b.var(ddof=1) / 2) ** 0.5, "Welch's t over seeds"
    if error == 0:
        return Contrast(difference, difference, difference, float(difference == 0), 0.0, test)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return Contrast(difference, difference - half, difference + half, p, difference / spread, test)
