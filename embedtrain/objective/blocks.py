"""Losses made of rows of similarities: every sub-model from one pass over the queries, in chunks.

The gradient is worked out chunk by chunk while the value is, so memory grows with b x C + (B + C) x D and never
with B x C, nothing is computed twice, and the negatives of a row are decided once for all sub-models.

Letters: B queries, b those of a chunk, C documents, D width, L layers, K prefixes of one layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from embedtrain.objective import nested
from embedtrain.objective.nested import Side, Similarity
from embedtrain.objective.row_terms import BUDGET, RowLoss, RowReport, RowTerm, Step
from embedtrain.types import Allowed, BlockName, Blocks, Embeddings, Pairing, RowFacts, SubModel


class RowValue(NamedTuple):
    """All row losses of a step."""

    total: Tensor  # scalar, differentiable
    parts: dict[SubModel, Tensor]  # detached loss of each sub-model before its weight
    distillation: Tensor  # detached scalar
    report: RowReport


def evaluate(query: Embeddings, docs: Embeddings, step: Step) -> RowValue:
    """Σ over sub-models and terms of weight · Σ_i rows_i · loss_i, and the distillation of each on top.

    Args:
        query: (L, B, D) un-normalised, of every layer among the weights.
        docs: (L, C, D) likewise.
        step: what is computed.
    """
    pass_ = _Pass(step, query.layers)
    parameters = step.parameters
    total: Tensor = _Fused.apply(pass_, query.values, docs.values, *parameters)  # type: ignore[no-untyped-call]
    return RowValue(total, pass_.parts, pass_.distillation, pass_.report())


def contrast(loss: RowLoss, query: Tensor, docs: Tensor, pairing: Pairing, *, budget: int = BUDGET) -> Tensor:
    """The mean of one row loss over the queries, at one sub-model, a scalar.

    Args:
        loss: the loss.
        query: (B, d) raw prefixes.
        docs: (C, d) raw prefixes.
        pairing: positives and candidates.
        budget: similarities of one block held at a time.
    """
    sub = SubModel(1, query.shape[1])
    even = query.new_full((len(query),), 1 / len(query))
    step = Step(pairing, {sub: 1.0}, [RowTerm(loss, 1.0, even)], None, budget)
    return evaluate(Embeddings(query[None], (1,)), Embeddings(docs[None], (1,)), step).total


class _Fused(torch.autograd.Function):
    """The value and, made along with it, the gradient; backward only multiplies."""

    @staticmethod
    def forward(ctx: Any, pass_: _Pass, query: Tensor, docs: Tensor, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        total, gradients = pass_.run(query.detach(), docs.detach(), parameters, any(ctx.needs_input_grad))
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return (None, *(gradient * upstream[0] for gradient in ctx.saved_tensors))


class _Pass:
    """One evaluation of a step: chunks of queries, inside them the layers from the deepest up."""

    def __init__(self, step: Step, layers: tuple[int, ...]) -> None:
        self.step, self.place = step, {layer: place for place, layer in enumerate(layers)}
        self.dims: dict[int, list[int]] = {}  # deepest layer first, dims ascending
        for sub in sorted(step.weights, reverse=True):
            self.dims.setdefault(sub.layer, []).insert(0, sub.dim)
        kinds = {term.loss.similarity for term in step.terms}
        kinds |= {step.distill.similarity} if step.distill else set()
        self.kinds: tuple[Similarity, ...] = tuple(sorted(kinds))
        self.parts: dict[SubModel, Tensor] = {}
        self._reports: list[RowReport] = []

    def run(
        self, query: Tensor, docs: Tensor, parameters: Sequence[Tensor], differentiate: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """The total, and its gradients with respect to queries, documents and parameters if asked."""
        zero = query.new_zeros(())
        self.parts = dict.fromkeys(sorted(self.step.weights), zero)
        self.distillation = total = zero
        self.parameters, self.differentiate = parameters, differentiate
        self.parameter_gradients = [torch.zeros_like(item) for item in parameters]
        self.sides = {
            (layer, kind): (
                nested.side(query[place], dims, kind),
                nested.side(docs[place], dims, kind),
            )
            for layer, dims in self.dims.items()
            for kind in self.kinds
            for place in (self.place[layer],)
        }
        self.gradients = {
            key: (nested.empty_gradient(query_side), nested.empty_gradient(docs_side))
            for key, (query_side, docs_side) in self.sides.items()
            if differentiate
        }
        for facts in self.step.chunks(query.device):
            total = total + self._chunk(facts)
        return total, self._settled(query, docs) if differentiate else []

    def report(self) -> RowReport:
        """What the chunks reported, in the order of the queries."""
        parts = self._reports
        return RowReport(
            loss=torch.cat([part.loss for part in parts]),
            rank_first=torch.cat([part.rank_first for part in parts]),
            considered=torch.cat([part.considered for part in parts]),
            removed={rule: torch.cat([part.removed[rule] for part in parts]) for rule in parts[0].removed},
        )

    def _chunk(self, facts: RowFacts) -> Tensor:
        """The total of these queries; their gradients are added up."""
        deepest = self.step.largest.layer
        scores = {kind: self._scores(deepest, kind, facts) for kind in self.kinds}
        allowed = self._allowed(scores, facts)
        distill = self.step.distill
        teacher = None if distill is None else scores[distill.similarity]["query_docs"][-1]
        total = self._layer(deepest, scores, allowed, teacher, facts)
        for layer in list(self.dims)[1:]:
            scores = {kind: self._scores(layer, kind, facts) for kind in self.kinds}
            total = total + self._layer(layer, scores, allowed, teacher, facts)
        return total

    def _allowed(self, scores: Mapping[Similarity, Scores], facts: RowFacts) -> Allowed:
        candidates, names = self.step.pairing.candidates, self.step.names
        student = None
        if candidates.needs_student:
            cosines = scores["cosine"] if "cosine" in scores else self._cosines_of_largest(facts)
            student = Blocks(**{name: cosines[name][-1] for name in names})
        return candidates.allowed(facts.rows, names, student)

    def _cosines_of_largest(self, facts: RowFacts) -> Scores:
        sub = self.step.largest
        query, docs = (
            nested.side(one.values[:, : sub.dim], [sub.dim], "cosine")
            for one in self.sides[sub.layer, self.kinds[0]]
        )
        return _all_scores(query, docs, [sub.dim], facts, self.step.names)

    def _scores(self, layer: int, kind: Similarity, facts: RowFacts) -> Scores:
        return _all_scores(*self.sides[layer, kind], self.dims[layer], facts, self.step.names)

    def _layer(
        self,
        layer: int,
        scores: Mapping[Similarity, Scores],
        allowed: Allowed,
        teacher: Tensor | None,
        facts: RowFacts,
    ) -> Tensor:
        """The total of one layer's sub-models on these queries."""
        total = self.distillation.new_zeros(())
        upstream: dict[tuple[Similarity, BlockName], list[Tensor]] = {
            (kind, name): [] for kind in self.kinds for name in self.step.names
        }
        for place, dim in enumerate(self.dims[layer]):
            sub = SubModel(layer, dim)
            with torch.enable_grad():
                leaves = {
                    key: scores[key[0]][key[1]][place].detach().requires_grad_(self.differentiate)
                    for key in upstream
                }
                value = self._sub_model(sub, leaves, allowed, teacher, facts)
            total = total + value.detach()
            if self.differentiate:
                wanted = [*leaves.values(), *self.parameters]
                found = torch.autograd.grad(value, wanted, allow_unused=True)
                for key, leaf, gradient in zip(leaves, leaves.values(), found, strict=False):
                    upstream[key].append(torch.zeros_like(leaf) if gradient is None else gradient)
                for kept, gradient in zip(self.parameter_gradients, found[len(leaves) :], strict=True):
                    if gradient is not None:
                        kept.add_(gradient)
        if self.differentiate:
            for (kind, name), slopes in upstream.items():
                self._flow_back(layer, kind, name, slopes, scores[kind][name], facts)
        return total

    def _sub_model(
        self,
        sub: SubModel,
        leaves: Mapping[tuple[Similarity, BlockName], Tensor],
        allowed: Allowed,
        teacher: Tensor | None,
        facts: RowFacts,
    ) -> Tensor:
        """What one sub-model adds to the total; notes its part and, for the largest, the report."""
        blocks = {
            kind: Blocks(**{name: leaves[kind, name] for name in self.step.names}) for kind in self.kinds
        }
        largest, part = sub == self.step.largest, self.distillation.new_zeros(())
        losses = [
            term.loss.rows(blocks[term.loss.similarity], allowed.blocks, facts) for term in self.step.terms
        ]
        for term, loss in zip(self.step.terms, losses, strict=True):
            part = part + term.weight * (loss * term.rows[facts.rows]).sum()
        self.parts[sub] = self.parts[sub] + part.detach()
        if largest:
            self._note(torch.stack(losses).sum(0) if losses else None, blocks, allowed, facts)
        value = self.step.weights[sub] * part
        if self.step.distill is not None and not largest:
            assert teacher is not None
            student = blocks[self.step.distill.similarity].query_docs
            rows = self.step.distill.rows(student, teacher, allowed.blocks.query_docs, facts)
            learned = rows.sum() / len(self.step.pairing.target)
            self.distillation = self.distillation + learned.detach()
            value = value + learned
        return value

    def _note(
        self, loss: Tensor | None, blocks: Mapping[Similarity, Blocks], allowed: Allowed, facts: RowFacts
    ) -> None:
        scores = next(iter(blocks.values())).query_docs.detach()
        positive = scores.gather(1, facts.target[:, None])  # (b, 1)
        better = ((scores > positive) & allowed.blocks.query_docs).any(1)
        self._reports.append(
            RowReport(
                loss=positive.new_zeros(len(positive)) if loss is None else loss.detach(),
                rank_first=~better,
                considered=allowed.considered,
                removed=allowed.removed,
            )
        )

    def _flow_back(
        self,
        layer: int,
        kind: Similarity,
        name: BlockName,
        slopes: list[Tensor],
        scores: list[Tensor],
        facts: RowFacts,
    ) -> None:
        """Add one block's gradient to the vectors it was made of."""
        query, docs = self.sides[layer, kind]
        to_query, to_docs = self.gradients[layer, kind]
        from_query, to_all_docs = name.startswith("query"), name.endswith("docs")
        index = facts.rows if from_query else facts.target
        left = (query if from_query else docs).rows(index)
        to_left = nested.empty_gradient(left)
        right, to_right = (docs, to_docs) if to_all_docs else (query, to_query)
        nested.backward(slopes, scores, left, right, self.dims[layer], to_left, to_right)
        owner = to_query if from_query else to_docs
        owner.values.index_add_(0, index, to_left.values)
        if owner.shrink is not None and to_left.shrink is not None:
            owner.shrink.index_add_(0, index, to_left.shrink)

    def _settled(self, query: Tensor, docs: Tensor) -> list[Tensor]:
        """The gradients with respect to the inputs, in their order."""
        whole = [torch.zeros_like(query), torch.zeros_like(docs)]
        for (layer, kind), gradients in self.gradients.items():
            for all_layers, side, gradient in zip(whole, self.sides[layer, kind], gradients, strict=True):
                gradient.settle(side, self.dims[layer])
                all_layers[self.place[layer]] += gradient.values
        return [*whole, *self.parameter_gradients]


Scores = dict[BlockName, list[Tensor]]  # each block's similarities at every dim of a layer, ascending


def _all_scores(
    query: Side, docs: Side, dims: Sequence[int], facts: RowFacts, names: Sequence[BlockName]
) -> Scores:
    left = {"query": query.rows(facts.rows)}
    if any(name.startswith("doc") for name in names):
        left["doc"] = docs.rows(facts.target)
    right = {"docs": docs, "queries": query}
    return {
        name: nested.forward(left[name.partition("_")[0]], right[name.partition("_")[2]], dims)
        for name in names
    }
