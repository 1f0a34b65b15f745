"""Findings about cuts: trained sub-models whose vectors, or scores, collapse."""

from __future__ import annotations

from statistics import fmean

from embedtrain.files.measured.verdict import Finding
from embedtrain.reporting.cells import paired
from embedtrain.reporting.verdict.facts import Facts
from embedtrain.reporting.verdict.movement import USUAL_LR
from embedtrain.types import Cell, InputError, SubModel

ALIKE = 0.9  # mean cosine of different texts from which all vectors point one way
RANK = 1.5  # effective rank below which a cut has one direction
HALF = 0.5  # share of the whole model's score that a trained cut should keep
WEIGHT = 3  # of a collapsed cut beside others
MOST = 12  # sub-models of a cure


def collapsing_cuts(facts: Facts) -> Finding | None:
    """Trained cuts that give all texts one vector, or that fell below half of the whole model's score."""
    alike = {sub: cosine for sub in facts.trained if (cosine := _collapsed(facts, sub)) is not None}
    weak = _weak(facts)
    gone = list(dict.fromkeys([*alike, *weak]))
    if not gone:
        return None
    said = [f"{sub} gives different texts a mean cosine of {cosine:.2f}" for sub, cosine in alike.items()]
    said += [f"{sub} fell to {share:.0%} of the whole model's score" for sub, share in weak.items()]
    text = "; ".join(said[:3]) + ("; ..." if len(said) > 3 else "")
    if facts.whole in gone:
        lr = facts.setting("optim.lr") or USUAL_LR
        return facts.finding("collapse", f"{text}: the whole model has collapsed", optim__lr=lr / 10)
    subs = list(facts.trained) if len(facts.trained) <= MOST else [*gone[: MOST - 1], facts.whole]
    subs = list(dict.fromkeys([*subs, facts.whole]))
    return facts.finding(
        "collapse",
        f"{text}: give such cuts more weight in the plan",
        plan="fixed_pairs",
        plan__pairs=[list(sub) for sub in subs],
        plan__weights=[WEIGHT if sub in gone else 1 for sub in subs],
    )


def _collapsed(facts: Facts, sub: SubModel) -> float | None:
    """The mean cosine of different texts over tasks, where it says collapse and did not before training."""
    lines = [line for line in facts.health if (line.layer, line.dim) == sub and line.step == facts.step]
    if not lines:
        return None
    cosine = fmean(line.mean_cosine for line in lines)
    rank = fmean(line.effective_rank for line in lines)
    before = [line for line in facts.health if (line.layer, line.dim) == sub and line.step == 0]
    was = fmean(line.mean_cosine for line in before) if before and facts.step else -1.0
    return cosine if (cosine > ALIKE or (rank < RANK and sub.dim > 2)) and cosine > was else None


def _weak(facts: Facts) -> dict[SubModel, float]:
    """The share of the whole model's score of each trained cut that became worse and keeps less than HALF."""
    old, new = (
        [score for score in part if score.dtype == "float32"] for part in (facts.before, facts.scores)
    )
    try:
        before, after = paired(old, new)
    except InputError:  # not all were measured alike
        return {}
    best = after.get(Cell(*facts.whole), 0.0)
    known = {sub: cell for sub in facts.trained if (cell := Cell(*sub)) in after and cell in before}
    fell = {sub: after[cell] / best for sub, cell in known.items() if best > 0 and after[cell] < before[cell]}
    return {sub: share for sub, share in fell.items() if share < HALF}
