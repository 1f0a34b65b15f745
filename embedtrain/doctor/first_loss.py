"""The first loss of the run beside the loss of a model to which all texts are alike.

Such a model gives all similarities of a query alike, and its InfoNCE is ln(candidates), whatever the
temperature. Other losses have no such formula, but have a value there: the objective itself is asked, with
one vector for all texts and the negatives that the real vectors leave.
"""

from __future__ import annotations

import math

import torch

from embedtrain.doctor.built_run import BuiltRun, Encoded
from embedtrain.doctor.findings import Finding, Level, finding
from embedtrain.doctor.negatives import Counts, by_largest, largest
from embedtrain.objective.matryoshka import Objective
from embedtrain.types import Embeddings, SubModel

CHECK = "first loss"
ABOVE = 1.5  # times the loss of a model that knows nothing
NOTHING = 0.02  # of it: nothing is left to learn


def first_losses(run: BuiltRun, vectors: Encoded) -> tuple[dict[SubModel, float], dict[SubModel, float]]:
    """The loss of each sub-model on a batch without distillation: measured, and with one vector for all."""
    links, chosen = vectors.first.batch.links, vectors.first.chosen
    whole = run.loss.objective
    objective = Objective(whole.loss, reduction=whole.reduction, similarity_budget=whole.budget)
    objective.to(run.device)
    pairing = by_largest(vectors)
    alike = vectors.texts._replace(values=torch.ones_like(vectors.texts.values))

    def losses(texts: Embeddings) -> dict[SubModel, float]:
        value = objective(texts.rows(links.query), texts.rows(links.docs), pairing, chosen)
        return {sub: float(part) for sub, part in value.parts}

    with torch.no_grad():
        return losses(vectors.texts), losses(alike)


def loss_finding(run: BuiltRun, vectors: Encoded, negatives: Counts | None) -> Finding:
    """The loss of the largest sub-model against what it would be if the model knew nothing."""
    measured, blind = first_losses(run, vectors)
    sub = largest(vectors.first)
    loss, expected = measured[sub], blind[sub]
    facts = {
        "task": vectors.first.task,
        "measured": {str(item): value for item, value in measured.items()},
        "expected": expected if math.isfinite(expected) else None,
        "rows": len(vectors.first.batch.links.query),
    }
    named = ""
    if negatives is not None:
        facts["ln_candidates"] = float((negatives.left + 1).double().log().mean())
        named = f", ln(candidates) {facts['ln_candidates']:.3f}"
    known = f"{expected:.3f} if all texts were alike" if math.isfinite(expected) else "nothing known of it"
    level, cure = judged(loss, expected)
    cut = f" (first {facts['rows']:,} rows of the batch)" if vectors.first.cut else ""
    message = f"{vectors.first.task}: {loss:.3f} at {sub}, {known}{named}{cut}"
    return finding(CHECK, level, message, cure, **facts)


def judged(loss: float, expected: float) -> tuple[Level, str]:
    """What a measured loss means beside the loss of a model that knows nothing."""
    if not math.isfinite(loss):
        return "error", "Look at the embeddings: the model is broken, or its dtype too narrow."
    if not math.isfinite(expected) or expected < 1e-6:
        return "ok", ""
    if loss > ABOVE * expected:
        return "warning", (
            "It is worse than knowing nothing: the positives may be wrong (columns, order of rows), the "
            "temperature too low, or the vectors of an untrained pooling far from what the loss asks."
        )
    if loss < NOTHING * expected:
        return "warning", (
            "There is nothing left to learn: positives that repeat the query, negatives that are too easy, "
            "or rows that the model was trained on."
        )
    return "ok", ""
