"""Findings about negatives: rules take most of them out, or they are nearer than the positives."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

from embedtrain.files.measured.verdict import Finding
from embedtrain.reporting.verdict.facts import APART, Facts

MOST = 0.5  # share of the possible negatives that rules may take out
NEAREST = 0.5  # share of queries whose positive should be the nearest after training
LEARNT = 0.1  # by which that share should have risen
ROWS, STEPS = 12, 100  # fewer of them say nothing


def mostly_removed(facts: Facts) -> Finding | None:
    """Rules leave a loss few negatives in the last quarter of training."""
    lines = facts.metrics[-max(1, len(facts.metrics) // 4) :]
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in lines:
        for name, value in line.values.items():
            dataset, cut, rule = name.rpartition("/removed_")
            if cut:
                shares[dataset.removeprefix("train/"), rule].append(value)
    means = {place: fmean(values) for place, values in shares.items()}
    datasets: dict[str, float] = defaultdict(float)
    for (dataset, _), mean in means.items():
        datasets[dataset] += mean
    dataset = max(datasets, key=lambda name: datasets[name], default="")
    if not datasets or datasets[dataset] <= MOST:
        return None
    rule = max((place for place in means if place[0] == dataset), key=lambda place: means[place])[1]
    return facts.finding(
        "negatives_removed",
        f"rules remove {datasets[dataset]:.0%} of the possible negatives of {dataset}, most of them {rule}: "
        "little is left to learn from",
        negatives="all",
    )


def mostly_false(facts: Facts) -> Finding | None:
    """After training most positives are still not nearer than their negatives."""
    rows = None if facts.weights is None else facts.weights.rows
    if rows is None or rows.rows < ROWS or facts.step < STEPS or facts.setting("negatives.rules"):
        return None
    if (facts.most_moved or 0) > APART:  # the weights are at fault
        return None
    if rows.nearest > NEAREST or rows.nearest - rows.nearest_before > LEARNT:
        return None
    return facts.finding(
        "false_negatives",
        f"of {rows.rows} training rows looked at, the positive is the nearest in {rows.nearest:.0%}, before "
        f"training in {rows.nearest_before:.0%}: many negatives are probably as good as the positive",
        negatives="qwen3",
    )
