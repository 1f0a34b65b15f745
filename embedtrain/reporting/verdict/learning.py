"""Findings about the steps: forgetting, a learning rate or temperature out of range."""

from __future__ import annotations

import math

from embedtrain.files.measured.verdict import Finding
from embedtrain.reporting.verdict.facts import APART, Facts

FELL = 0.02  # share of its beginning by which a loss has fallen
ROSE = 0.02
LOST = 0.01  # of a score of 0..1, where no items say what chance is
COLDEST, HOTTEST, USUAL = 0.005, 0.3, 0.05  # temperatures
BARELY = 1e-4  # relative change of the block that moved most


def forgetting(facts: Facts) -> Finding | None:
    """The loss falls while tasks become worse."""
    loss = facts.curve("train/loss")
    worse = [
        change for change in facts.changes
        if change.verdict == "worse" or (change.verdict is None and change.difference < -LOST)
    ]  # fmt: skip
    mean = sum(change.difference for change in facts.changes)
    lr = facts.setting("optim.lr")
    if loss is None or loss.fall < FELL or not worse or mean >= 0 or not lr:
        return None
    names = ", ".join(change.task for change in worse[:3]) + ("" if len(worse) <= 3 else ", ...")
    return facts.finding(
        "forgetting",
        f"the loss fell from {loss.first:.3g} to {loss.last:.3g} while {len(worse)} of {len(facts.changes)} "
        f"tasks became worse ({names}): the model forgets, or the rows are of another kind than the tasks",
        optim__lr=lr / 5,
    )


def learning_rate(facts: Facts) -> Finding | None:
    """The loss rises, or neither it nor the weights move."""
    loss, lr = facts.curve("train/loss"), facts.setting("optim.lr")
    if loss is None or not lr:
        return None
    most, rose = facts.most_moved, loss.fall < -ROSE and not _grows_harder(facts)
    if not math.isfinite(loss.last) or rose or (most or 0) > APART:
        seen = f"the loss rose from {loss.first:.3g} to {loss.last:.3g}"
        if (most or 0) > APART:
            seen = f"a block moved by {most:.0%} of its size"
        text = f"{seen}: the learning rate {lr:g} is too high"
        return facts.finding("learning_rate_high", text, optim__lr=lr / 10)
    if loss.fall < FELL and most is not None and most < BARELY:
        return facts.finding(
            "learning_rate_low",
            f"the loss stayed at {loss.last:.3g} and the weights moved by {most:.1e} of their size at most: "
            f"the learning rate {lr:g} is too low, or the steps are too few",
            optim__lr=lr * 10,
        )
    return None


def _grows_harder(facts: Facts) -> bool:
    """Whether a run by its settings ends with a harder loss than it began with."""
    scheduled = str(facts.setting("plan._target_")).endswith(".Scheduled")
    return bool(facts.setting("queue") or facts.setting("mining")) or scheduled


def temperature(facts: Facts) -> Finding | None:
    """A temperature, set or learnt, at which a loss hardly learns."""
    learnt = [
        math.exp(-value)
        for line in facts.metrics
        for name, value in line.values.items()
        if name.endswith("log_inverse")
    ]  # the last line may be of a validation
    said = facts.setting("loss.temperature")
    now = learnt[-1] if learnt else said
    if not isinstance(now, float | int) or isinstance(now, bool) or COLDEST <= now <= HOTTEST:
        return None
    what = "only the nearest candidates count" if now < COLDEST else "all candidates count nearly alike"
    said = f"the temperature {'became' if learnt else 'is'} {now:.3g}, outside {COLDEST:g} to {HOTTEST:g}"
    return facts.finding("temperature", f"{said}: {what}", loss__temperature=USUAL)
