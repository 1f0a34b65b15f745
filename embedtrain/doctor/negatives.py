"""How many negatives a query really has, and what takes the others away.

Letters: B queries, b some of them, C documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from embedtrain.doctor.built_run import BuiltRun, Encoded, FirstBatch, paired
from embedtrain.doctor.duplicates import NEGATIVES
from embedtrain.doctor.findings import SHOWN, Finding, Level, clip, finding, graded, percent, spread
from embedtrain.objective.similarity.decided import decided
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.objective.similarity.pairing import QUERY_DOCS, BatchCandidates
from embedtrain.types import Links, Pairing, SubModel

CHECK = "negatives"
MASKED = 0.05  # share of what others brought that is labelled a positive
REMOVED = 0.5  # share that one rule takes out
COUNTED = 1_024  # queries of a batch that are counted
CHUNK = 128  # of them at a time


class Counts(NamedTuple):
    """Of some queries, (b,) each."""

    left: Tensor  # documents that are their negatives
    considered: Tensor  # before the rules
    removed: dict[str, Tensor]  # by each rule
    others: Tensor  # documents of the same task that others brought
    masked: Tensor  # of those, the ones that are the query's text or a labelled positive of it


def needs_vectors(run: BuiltRun) -> bool:
    """Whether a rule reads similarities, so that negatives are known only once texts are encoded."""
    pair = run.loss.pair
    return not isinstance(pair, Negatives) or bool(pair.rules)


def negatives_of(run: BuiltRun, first: FirstBatch, vectors: Encoded | None) -> Counts:
    """What its queries may be contrasted with; of all its rows where no rule needs vectors."""
    if vectors is None:
        return counts(paired(run, first, None, whole=True), first.whole.links)
    return counts(by_largest(vectors), vectors.first.batch.links, vectors.pairing)


def by_largest(vectors: Encoded) -> Pairing:
    """Who may be a negative as the largest sub-model has it, whatever is being scored."""
    links, values = vectors.first.batch.links, vectors.texts.raw(largest(vectors.first))  # (M, d)
    return decided(vectors.pairing, values[links.query], values[links.docs])


def counts(pairing: Pairing, links: Links, decided: Pairing | None = None) -> Counts:
    """Negatives of the first queries of a batch, a chunk at a time.

    Args:
        pairing: who may be a negative.
        links: of its batch.
        decided: the pairing that knows the labels, where `pairing` has other candidates.
    """
    inner = (decided or pairing).candidates
    parts: list[Counts] = []
    queries = torch.arange(min(len(pairing.target), COUNTED), device=pairing.target.device)
    doc_task = links.task[links.owner]
    for rows in torch.split(queries, CHUNK):
        allowed = pairing.candidates.allowed(rows, QUERY_DOCS, None)
        others = (doc_task[None, :] == links.task[rows, None]) & (links.owner[None, :] != rows[:, None])
        known = torch.zeros_like(others)
        if isinstance(inner, BatchCandidates):
            known = inner.relevance.docs(rows)[:, : others.shape[1]] & others
        left = allowed.blocks.query_docs.sum(1) - 1
        parts.append(Counts(left, allowed.considered, allowed.removed, others.sum(1), known.sum(1)))
    return Counts(
        torch.cat([part.left for part in parts]),
        torch.cat([part.considered for part in parts]),
        {name: torch.cat([part.removed[name] for part in parts]) for name in parts[0].removed},
        torch.cat([part.others for part in parts]),
        torch.cat([part.masked for part in parts]),
    )


def largest(first: FirstBatch) -> SubModel:
    """The deepest and widest sub-model of the step."""
    return max(item.sub for item in first.chosen)


def negative_findings(run: BuiltRun, first: FirstBatch, counted: Counts) -> Iterator[Finding]:
    """Negatives a query has, what each rule takes out, and how many labelled positives others bring."""
    left = counted.left.tolist()
    some = spread(left)
    mean = sum(left) / len(left)
    level: Level = "ok"
    cure = "Such queries have a loss of 0: larger batches, or negatives of their own."
    if not some["min"]:
        level = "warning"
    if not some["max"]:
        level, cure = "error", "There is nothing to contrast: larger batches, own negatives, fewer rules."
    alone = [row for row, count in enumerate(left) if not count][:SHOWN]
    yield finding(
        CHECK,
        level,
        f"{first.task}: a query has {mean:,.1f} negatives in the mean, {some['min']:,} at least "
        f"({len(left):,} queries of the first batch)",
        cure,
        _named(run, first, alone),
        task=first.task,
        queries=len(left),
        mean=mean,
        **some,
    )
    considered = int(counted.considered.sum())
    for rule, out in counted.removed.items():
        share = int(out.sum()) / considered if considered else 0.0
        yield finding(
            CHECK,
            "warning" if share >= REMOVED else "ok",
            f"{first.task}: rule {rule} takes out {percent(share, 1)} of the untrained model's negatives",
            "It takes most: a smaller margin, or begin later by a schedule.",
            task=first.task,
            rule=rule,
            share=share,
        )
    # hidden positives: what others brought and labels say belongs to the query
    others, masked = int(counted.others.sum()), int(counted.masked.sum())
    share = masked / others if others else 0.0
    yield finding(
        NEGATIVES,
        graded(share, MASKED),
        f"{first.task}: {masked:,} of {others:,} texts that other rows bring to a query in the first batch "
        f"are labelled as its positives ({percent(share, 1)}); they are left out of its negatives",
        "Unlabelled ones like them are not: a guide (negatives with a margin rule) takes those out too.",
        _named(run, first, counted.masked.nonzero()[:SHOWN, 0].tolist()),
        task=first.task,
        masked=masked,
        of=others,
        share=share,
    )


def _named(run: BuiltRun, first: FirstBatch, queries: list[int]) -> tuple[str, ...]:
    rows = first.whole.links.rows[queries].tolist() if queries else []
    return tuple(f"{item.where}: {clip(item.query)}" for item in run.data.examples_at(rows))


def mean_cosine(vectors: Tensor) -> float:
    """Mean cosine of all pairs of different rows of (M, D), M of 2 or more."""
    unit = F.normalize(vectors.float(), dim=-1)
    count = len(unit)
    return float((unit.sum(0).square().sum() - count) / (count * (count - 1)))
