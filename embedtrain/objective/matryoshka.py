"""One objective over many sub-models: the weighted sum of Matryoshka training, and distillation on top.

Kusupati et al. 2022, Matryoshka Representation Learning, 2205.13147, equation 1: Σ_m c_m ℓ(e_{:m}), a sum and
not a mean, so adding sub-models raises the effective learning rate; `reduction="mean"` divides by Σ_m c_m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, cast, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from embedtrain.devices import exact_float32
from embedtrain.objective.distill.kl import Distill
from embedtrain.objective.losses.pairs import Picks, on_host
from embedtrain.objective.losses.terms import Sum, Term, subset
from embedtrain.objective.losses.weighting import Weighting
from embedtrain.objective.schedule import at
from embedtrain.objective.similarity import blocks
from embedtrain.objective.similarity.decided import decided
from embedtrain.objective.similarity.row_terms import RowDistill, RowLoss, RowReport, RowTerm, Step
from embedtrain.transfers import moved
from embedtrain.types import Chosen, Embeddings, InputError, Pairing, SubModel, Weighted

Reduction = Literal["sum", "mean"]


@runtime_checkable
class _Rows(Protocol):
    """What tells a loss of rows from one of vectors."""

    def rows(self, *parts: object) -> Tensor: ...


class Loss(Protocol):
    """Prefixes and their pairing to a scalar; the loss normalises, if it wants unit vectors."""

    def __call__(self, query: Tensor, docs: Tensor, pairing: Pairing) -> Tensor:
        """The mean loss of the batch, a scalar.

        Args:
            query: (B, d) prefixes, not normalised.
            docs: (C, d) prefixes, not normalised.
            pairing: positives, owners, scores and candidates.
        """
        ...


class ObjectiveValue(NamedTuple):
    """What a step minimises, and what it is made of."""

    total: Tensor  # scalar, to be differentiated
    parts: tuple[tuple[SubModel, Tensor], ...]  # detached loss of each distinct sub-model before its weight
    distillation: Tensor | None  # detached, as it entered the total
    rows: RowReport | None = None  # each query under the largest sub-model; None without a row loss


class Objective(nn.Module):
    """Σ weight · loss(sub-model) + distillation, over what the plan chose for this step.

    Args:
        loss: a row loss, a loss of vectors, or a `Sum` of them.
        distill: what the smaller sub-models learn from the largest.
        weighting: which queries count more in the row losses; None for all the same.
        reduction: "sum" over sub-models as in the paper, or "mean" weighted by the plan.
        similarity_budget: similarities of one block held in memory at a time; None fits the device.

    Raises:
        InputError: for an unknown reduction, a budget below 1, or a weighting without a row loss.
    """

    def __init__(
        self,
        loss: Loss | RowLoss | Sum,
        distill: Distill | RowDistill | None = None,
        weighting: Weighting | None = None,
        reduction: Reduction = "sum",
        similarity_budget: int | None = None,
    ) -> None:
        super().__init__()
        if reduction not in get_args(Reduction):
            raise InputError(f'reduction must be "sum" or "mean", got {reduction!r}')
        if similarity_budget is not None and similarity_budget < 1:
            raise InputError(f"similarity_budget must be positive, got {similarity_budget}")
        self.loss = loss
        self._alone = (
            () if isinstance(loss, Sum) else (Term(cast(nn.Module, loss)),)
        )  # a tuple: not registered
        self.distill = distill
        self.weighting = weighting
        self.reduction, self.budget = reduction, similarity_budget
        if weighting is not None and not any(isinstance(term.loss, _Rows) for term in self.terms):
            raise InputError(
                "weighting needs a loss of each query (InfoNCE and its kind); others score the whole batch"
            )

    @property
    def needs(self) -> frozenset[str]:
        """What the losses need of a batch: "scores", "teacher", "guide", "guide_rule", ..."""
        parts = [*(term.loss for term in self.terms), self.distill]
        return frozenset().union(*(getattr(part, "needs", frozenset()) for part in parts))

    def widths(self, chosen: Chosen, layers: Sequence[int]) -> list[int] | None:
        """Leading coordinates that are read of each layer; None where a distillation reads whole vectors."""
        if self.distill is not None and not isinstance(self.distill, _Rows):
            return None
        return [max(sub.dim for sub, _ in chosen if sub.layer == layer) for layer in layers]

    def forward(
        self, query: Embeddings, docs: Embeddings, pairing: Pairing, chosen: Chosen
    ) -> ObjectiveValue:
        """The objective of one batch.

        Args:
            query: (L, B, D) un-normalised, of every layer in `chosen`.
            docs: (L, C, D) likewise.
            pairing: shared by all sub-models.
            chosen: the sub-models and weights of this step; one that is listed twice counts with the sum of
                its weights and is computed once.

        Raises:
            ValueError: if nothing was chosen.
        """
        weights = self._weights(chosen)
        # Autocast would run the similarities in bf16, three digits, where a temperature of 0.05 needs six.
        with torch.autocast(query.values.device.type, enabled=False), exact_float32():
            query, docs = _at_least_float32(query), _at_least_float32(docs)
            total, parts = self._vectors(query, docs, pairing, weights)
            distillation, report = None, None
            terms = self._row_terms(query, docs, pairing, weights)
            row_distill = cast(RowDistill, self.distill) if isinstance(self.distill, _Rows) else None
            if terms or row_distill is not None:
                step = Step(pairing, weights, terms, row_distill, self.budget)
                value = blocks.evaluate(query, docs, step)
                total, report = total + value.total, value.report
                parts = {sub: part + value.parts[sub] for sub, part in parts.items()}
                distillation = None if row_distill is None else value.distillation
            if self.distill is not None and row_distill is None:
                weighed = tuple(Weighted(sub, weight) for sub, weight in weights.items())
                learned = cast(Distill, self.distill)(*_learning(query, docs, pairing, weighed))
                total, distillation = total + learned, learned.detach()
        return ObjectiveValue(total, tuple(parts.items()), distillation, report)

    @property
    def terms(self) -> list[Term]:
        """The losses, each with its weight and the data sets it is for."""
        return (
            [cast(Term, term) for term in self.loss.terms] if isinstance(self.loss, Sum) else [*self._alone]
        )

    def _weights(self, chosen: Chosen) -> dict[SubModel, float]:
        """The weight of each distinct sub-model, ascending."""
        if not chosen:
            raise ValueError("a plan must choose at least one sub-model per step")
        weights: dict[SubModel, float] = {}
        for sub, weight in chosen:
            weights[sub] = weights.get(sub, 0.0) + weight
        whole = sum(weights.values()) if self.reduction == "mean" else 1.0
        return {sub: weights[sub] / whole for sub in sorted(weights)}

    def _row_terms(
        self, query: Embeddings, docs: Embeddings, pairing: Pairing, weights: dict[SubModel, float]
    ) -> list[RowTerm]:
        """The row losses of this step, each query's factor such that the sum over queries is a mean."""
        even = query.values.new_full((len(pairing.target),), 1 / max(len(pairing.target), 1))  # (B,)
        terms = []
        for term in self.terms:
            if isinstance(term.loss, _Rows):
                ours = term.queries(pairing)
                factor = even if ours is None else even * moved(ours, even.device)
                terms.append(RowTerm(cast(RowLoss, term.loss), at(term.weight, pairing.step), factor))
        if self.weighting is None:
            return terms
        with torch.no_grad():
            seen = blocks.evaluate(query, docs, Step(pairing, {max(weights): 1.0}, terms, None, self.budget))
            counts = self.weighting(seen.report.loss, pairing.step)  # (B,)
        return [term._replace(rows=term.rows * counts) for term in terms]

    def _vectors(
        self, query: Embeddings, docs: Embeddings, pairing: Pairing, weights: dict[SubModel, float]
    ) -> tuple[Tensor, dict[SubModel, Tensor]]:
        """The losses of vectors: their weighted sum, and each sub-model's part."""
        total = query.values.new_zeros(())
        parts = dict.fromkeys(weights, total)
        terms = [term for term in self.terms if not isinstance(term.loss, _Rows)]
        if terms:
            pairing = decided(pairing, query.raw(max(weights)), docs.raw(max(weights)))
        for term in terms:
            loss, factor = cast(Loss, term.loss), at(term.weight, pairing.step)
            ours, asked, told, facts = term.queries(pairing), query, docs, pairing
            if ours is not None:
                factor *= int(ours.sum()) / len(ours)
                if not ours.any():
                    # DDP waits for the gradient of every parameter, also of one that has no part in this step
                    total = total + sum((0.0 * item.sum() for item in term.loss.parameters()), total * 0)
                    continue
                rows = ours.nonzero()[:, 0]
                facts, columns = subset(pairing, rows)
                asked, told = query.rows(rows), docs.rows(columns)
            picked = (loss.pick(facts),) if isinstance(loss, Picks) else ()
            for sub, weight in weights.items():
                part = factor * loss(asked.raw(sub), told.raw(sub), facts, *picked)
                parts[sub] = parts[sub] + part.detach()
                total = total + weight * part
        return total, parts


def _at_least_float32(embeddings: Embeddings) -> Embeddings:
    """bf16 and fp16 raised to float32; float32 and float64 as they are."""
    if embeddings.values.dtype in (torch.float32, torch.float64):
        return embeddings
    return Embeddings(embeddings.values.float(), embeddings.layers)


def _learning(
    query: Embeddings, docs: Embeddings, pairing: Pairing, chosen: Chosen
) -> tuple[Embeddings, Chosen, Tensor | None]:
    """What a distillation over texts is given: (L, B + C, D) and the guide's (B + C, G).

    Documents that no query of the batch brought are constants: they would only thin the mean.
    """
    guide, brought = pairing.guide, on_host(pairing).owner >= 0  # (C,)
    if not brought.all():
        ours = moved(brought.nonzero()[:, 0], docs.values.device)
        docs, guide = docs.rows(ours), None if guide is None else guide._replace(docs=guide.docs[ours])
    texts = Embeddings(torch.cat([query.values, docs.values], 1), query.layers)
    return texts, chosen, None if guide is None else torch.cat(guide)
