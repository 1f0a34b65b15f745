"""What cannot be combined, refused when a run is built: before anything is written or trained."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from embedtrain.data.read.sources import Example
from embedtrain.objective.losses.terms import Term
from embedtrain.objective.plan import Plan
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.types import Embeddings, Guide, InputError, Links, distinct_layers

LOG = logging.getLogger(__name__)
STEPS_REHEARSED = 2
SCORES = 256  # that are looked at, unless they are all the same
ROWS_LACK = {
    "scores": 'a "score" on the training rows, and none has one: add them, or train with loss=infonce',
    "teacher": "a teacher's scores, and no row has them: add them, or train with loss=infonce",
    "negatives": 'hard negatives, and no row has any: add "negatives", or train with loss=infonce',
}


def check_run(
    loss: BatchLoss,
    plan: Plan,
    *,
    width: int,
    offers: Collection[str],
    tasks: Mapping[str, bool],
    ranks: int,
    steps: int,
) -> None:
    """Refuse a loss that the data, the plan or the number of ranks cannot serve.

    Args:
        loss: what is trained.
        plan: on which sub-models.
        width: D of the model.
        offers: what the training rows have: any of "text_alone", "scores", "teacher", "negatives".
        tasks: names of the data sets, and whether the rows of each have scores.
        ranks: how many train together.
        steps: optimiser steps of the run.

    Raises:
        InputError: naming what is missing and what would do.
    """
    if "text_alone" in offers:
        raise InputError(
            'a training row is a text alone, and contrastive training needs pairs: give rows with "query" '
            'and "positive", or choose a step for texts (simcse, masked_bow, ...). Of texts with class '
            "labels, python -m embedtrain.data.labelled ROWS OUT writes triplets"
        )
    needs = loss.objective.needs | _pair_needs(loss)
    for need, lack in ROWS_LACK.items():
        if need in needs and need not in offers:
            raise InputError(f"loss needs {lack}")
    _check_guide(loss, needs)
    odd = [str(sub) for sub in plan.sub_models if sub.dim % 2]
    if "even_dims" in needs and odd:
        raise InputError(f"loss pairs the halves of a vector and needs even dims, the plan has {odd[0]}")
    if isinstance(loss.pair, Negatives):
        loss.pair.check_tasks(sorted(tasks))
    _check_kinds(loss, tasks)
    for term in (part for part in loss.objective.modules() if isinstance(part, Term)):
        unknown = [name for name in term.tasks or () if name not in tasks]
        if unknown:
            raise InputError(
                f"loss has a loss for the data set {unknown[0]!r}, which the data does not have; it has "
                f"{', '.join(map(repr, sorted(tasks)))}"
            )
    _check_queue(loss, plan, ranks, steps)
    _rehearse(loss, plan, width)


def check_validation(offers: Collection[str]) -> None:
    """Refuse validation rows that are texts alone, which rank nothing.

    Raises:
        InputError: naming what would do.
    """
    if "text_alone" in offers:
        raise InputError(
            "a validation row is a text alone, and validation ranks documents for queries: give pairs as "
            "data.validation, or leave validation out"
        )


def check_scores(task: str, rows: Sequence[Example]) -> None:
    """Refuse rows whose scores give no order, and count those whose order float32 loses."""
    scores = {row.score for row in islice(rows, SCORES) if row.score is not None}
    if not scores:
        return
    scores |= {row.score for row in rows if row.score is not None} if len(scores) == 1 else set()
    single = len({float(np.float32(score)) for score in scores})
    if len(rows) > 1 and single == 1:
        same = f"all {len(rows)} scores are {next(iter(scores))}" if len(scores) == 1 else "differ too little"
        raise InputError(
            f"data: {task}: scores give no order ({same} in float32): give scores that differ, or leave them "
            "out and train with loss=infonce"
        )
    if single < len(scores):
        LOG.warning(
            "%s: of %d different scores looked at %d are left in float32; scale them to 0..1",
            task, len(scores), single,
        )  # fmt: skip


READ_LABELS = frozenset({"scores", "guide", "teacher"})


def _check_kinds(loss: BatchLoss, tasks: Mapping[str, bool]) -> None:
    """Refuse one loss for rows with scores and rows without, and scores that no loss reads."""
    for term in loss.objective.terms:
        kinds = {tasks[name]: name for name in term.tasks or tasks if name in tasks}
        if len(kinds) == 2:
            raise InputError(
                f"one loss for {kinds[True]!r}, whose rows have scores, and {kinds[False]!r}, whose rows "
                "have none: use loss=weighted_sum with a term for each kind, its `tasks` named"
            )
    for name in (name for name, scored in tasks.items() if scored):
        losses = [term.loss for term in loss.objective.terms if term.tasks is None or name in term.tasks]
        if not any(READ_LABELS & getattr(part, "needs", frozenset()) for part in losses):
            raise InputError(
                f"the rows of {name!r} have scores or labels and no loss reads them, so a pair scored 0 "
                "would count as a positive one: use loss=cosent, or rows without scores"
            )


def _pair_needs(loss: BatchLoss) -> frozenset[str]:
    needs: frozenset[str] = getattr(loss.pair, "needs", frozenset())
    return needs


def _check_guide(loss: BatchLoss, needs: Collection[str]) -> None:
    """Refuse a guide that is missing, and one that would cost time and change nothing."""
    if "guide_rule" in needs and "guide" not in _pair_needs(loss):
        raise InputError(
            "loss is guided, and no rule of `negatives` asks a guide: choose negatives=gist guide=minilm (or "
            "guide=model guide.path=...), or loss=infonce"
        )
    if "guide" in needs and loss.guide is None:
        raise InputError(
            "a rule of `negatives`, the loss or the distillation needs a guide and there is none: "
            "choose guide=model guide.path=..., or leave that part out"
        )
    if "guide" not in needs and loss.guide is not None:
        raise InputError(
            "nothing asks the guide: no rule of `negatives`, no loss and no distillation uses it. Choose "
            "guide=none, or what uses it, e.g. negatives=gist, loss.teacher=guide or distill=embedding"
        )


def _check_queue(loss: BatchLoss, plan: Plan, ranks: int, steps: int) -> None:
    if loss.queue is None:
        return
    first = distinct_layers(plan(0))
    other = next((step for step in range(steps) if distinct_layers(plan(step)) != first), None)
    if other is not None:
        raise InputError(
            f"queue: this plan trains other layers at step {other} than at step 0, and the queue holds "
            "documents of past steps. Use queue=none, or a plan with the same layers at every step (full, "
            "dims, fixed_pairs, grid without per_step)"
        )
    if loss.gather == "none" and ranks > 1:
        raise InputError(
            'queue: with gather=none each rank would have a queue of its own; use gather="gradient" or '
            '"values", or queue=none'
        )


def _rehearse(loss: BatchLoss, plan: Plan, width: int) -> None:
    """Two steps on random embeddings of a tiny batch: whatever a part refuses, it refuses now."""
    objective = copy.deepcopy(loss.objective)
    draw = torch.Generator().manual_seed(0)
    links = _links(4)
    guide = None
    if loss.guide is not None:
        vectors = F.normalize(torch.randn(12, loss.guide.width, generator=draw), dim=-1)
        guide = Guide(vectors[links.query], vectors[links.docs])
    for step in range(STEPS_REHEARSED):
        chosen = plan(step)
        layers = distinct_layers(chosen)
        texts = Embeddings(torch.randn(len(layers), 12, width, generator=draw), layers)
        pairing = loss.pair(links, step=step, guide=guide, queued=None, device=links.task.device)
        with torch.no_grad():
            objective(texts.rows(links.query), texts.rows(links.docs), pairing, chosen)


def _links(queries: int) -> Links:
    """Queries that each have a positive and a hard negative of their own, a score and a teacher's scores."""
    number = torch.arange(queries)
    docs = queries + torch.arange(2 * queries)
    return Links(
        content_ids=torch.arange(3 * queries),
        query=number,
        docs=docs,
        owner=number.repeat(2),
        positive=number,
        known=docs[:queries],
        known_owner=number,
        task=torch.zeros_like(number),
        rows=number,
        scores=number / queries,
        teacher=torch.arange(2 * queries, 0, -1) / (2 * queries),
    )
