"""Many comparisons, tasks or seeds together: corrected p, Wilcoxon over tasks, intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from embedtrain.evaluation.comparing.statistics import Comparison
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
    smallest: float  # the least p that `n` tasks can give


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
    elif method == "bh" and count:
        ranked = stats.false_discovery_control(ranked)
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


def over_seeds(values: Sequence[float], *, level: float = 0.95) -> Seeds:
    """n, mean, standard deviation and t interval of the mean over seeds.

    The interval holds for any number of seeds if the scores are normal over them; a bootstrap of fewer than
    about 10 is too narrow.

    Raises:
        InputError: no value.
    """
    given = np.asarray(values, dtype=np.float64)
    if not len(given):
        raise InputError("no seed to aggregate")
    average = float(given.mean())
    if len(given) == 1:
        return Seeds(1, average, None, None, None)
    deviation = float(given.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, len(given) - 1)) * deviation / len(given) ** 0.5
    return Seeds(len(given), average, deviation, average - half, average + half)


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
    means = float(a.mean()), float(b.mean())
    difference, n = means[1] - means[0], min(len(a), len(b))
    paired = set(first) == set(second)
    if paired:
        b = np.asarray([second[name] for name in first])
        test, constant, spread = "paired t over seeds", np.ptp(b - a) == 0, (b - a).std(ddof=1)
    else:
        constant = np.ptp(a) == np.ptp(b) == 0
        test, spread = "Welch's t over seeds", (a.var(ddof=1) / 2 + b.var(ddof=1) / 2) ** 0.5
    if constant:
        ends, p, effect = (difference, difference), float(difference == 0), 0.0
    else:
        found = stats.ttest_rel(b, a) if paired else stats.ttest_ind(b, a, equal_var=False)
        low, high = found.confidence_interval(level)
        ends, p, effect = (float(low), float(high)), float(found.pvalue), float(difference / spread)
    return Comparison(*means, difference, *ends, p, effect, "Cohen's d", test, n)
