"""One evaluation of the row losses of a step: chunks of queries, inside them the layers from the deepest up.

Letters: B queries, b those of a chunk, C documents, D width, L layers, K prefixes of one layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from embedtrain.objective.similarity import nested
from embedtrain.objective.similarity.at_once import AtOnce
from embedtrain.objective.similarity.nested import Gradient, Side, Similarity, Slope
from embedtrain.objective.similarity.row_terms import RowReport, Sloped, Step
from embedtrain.types import Allowed, BlockName, Blocks, RowFacts, SubModel

Scores = dict[BlockName, list[Tensor]]  # each block's similarities at every dim of a layer, ascending
Slopes = dict[tuple[Similarity, BlockName], list[Slope | None]]  # likewise, what each dim's loss derives to


class Pass:
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
            (layer, kind): tuple(nested.side(part[self.place[layer]], dims, kind) for part in (query, docs))
            for layer, dims in self.dims.items()
            for kind in self.kinds
        }
        self.gradients = {
            key: (nested.empty_gradient(query_side), nested.empty_gradient(docs_side))
            for key, (query_side, docs_side) in self.sides.items()
            if differentiate
        }
        self.sloped, self.gain = self._sloped() if differentiate else (None, 1.0)
        if self.sloped is not None and query.device.type != "cpu":
            total = self._all_at_once(self.sloped, query.device)
        else:
            for facts in self.step.chunks(query.device):
                total = total + self._chunk(facts)
        return total, self._settled(query, docs) if differentiate else []

    def report(self) -> RowReport:
        """What the chunks reported, in the order of the queries."""
        loss, first, considered, removed = zip(*self._reports, strict=True)
        by_rule = {rule: torch.cat([part[rule] for part in removed]) for rule in removed[0]}
        return RowReport(torch.cat(loss), torch.cat(first), torch.cat(considered), by_rule)

    def _sloped(self) -> tuple[Sloped | None, float]:
        """The loss, if it is alone, on cosines that nobody else reads, and knows its derivative; its gain."""
        alone = len(self.step.terms) == 1 and self.kinds == ("cosine",) and self.step.distill is None
        if not alone or self.step.pairing.candidates.needs_student:
            return None, 1.0
        loss = self.step.terms[0].loss
        gain = loss.gain(self.step.pairing.step) if isinstance(loss, Sloped) else None
        return (None, 1.0) if gain is None else (cast(Sloped, loss), gain)

    def _chunk(self, facts: RowFacts) -> Tensor:
        """The total of these queries; their gradients are added up."""
        if self.sloped is not None:
            return self._known(self.sloped, facts)
        deepest = self.step.largest.layer
        scores = {kind: self._scores(deepest, kind, facts) for kind in self.kinds}
        allowed = self._allowed(scores, facts)
        teachers: dict[SubModel, Tensor] = {}  # the similarities of those done so far
        total = self._layer(deepest, scores, allowed, teachers, facts)
        for layer in list(self.dims)[1:]:
            scores = {kind: self._scores(layer, kind, facts) for kind in self.kinds}
            total = total + self._layer(layer, scores, allowed, teachers, facts)
        return total

    def _allowed(self, scores: Mapping[Similarity, Scores], facts: RowFacts) -> Allowed:
        candidates, names = self.step.pairing.candidates, self.step.names
        student = None
        if candidates.needs_student:
            cosines = scores["cosine"] if "cosine" in scores else self._cosines_of_largest(facts)
            student = Blocks(**{name: cosines[name][-1] for name in names})
        return candidates.allowed(facts.rows if facts.here is None else facts.here, names, student)

    def _cosines_of_largest(self, facts: RowFacts) -> Scores:
        sub = self.step.largest
        query, docs = (
            nested.side(one.values[:, : sub.dim], [sub.dim], "cosine")
            for one in self.sides[sub.layer, self.kinds[0]]
        )
        return _all_scores(query, docs, [sub.dim], facts, self.step.names)

    def _scores(self, layer: int, kind: Similarity, facts: RowFacts) -> Scores:
        query, docs = self.sides[layer, kind]
        return _all_scores(query, docs, self.dims[layer], facts, self.step.names)

    def _layer(
        self,
        layer: int,
        scores: Mapping[Similarity, Scores],
        allowed: Allowed,
        teachers: dict[SubModel, Tensor],
        facts: RowFacts,
    ) -> Tensor:
        """The total of one layer's sub-models on these queries."""
        total = self.distillation.new_zeros(())
        if self.step.distill is not None:
            teachers.update(self._taught(layer, scores[self.step.distill.similarity]["query_docs"]))
        slopes: Slopes = {(kind, name): [] for kind in self.kinds for name in self.step.names}
        for place, dim in enumerate(self.dims[layer]):
            sub = SubModel(layer, dim)
            value = self._derived(sub, scores, place, allowed, teachers, facts, slopes)
            total = total + value
        if self.differentiate:
            for (kind, name), found in slopes.items():
                self._flow_back(layer, kind, name, found, scores[kind][name], facts)
        return total

    def _taught(self, layer: int, scores: list[Tensor]) -> dict[SubModel, Tensor]:
        """The similarities of the sub-models of a layer that teach others."""
        every = {SubModel(layer, dim): found for dim, found in zip(self.dims[layer], scores, strict=True)}
        asked = {one for sub in self.step.weights for one in self.step.teachers(sub)}
        return {sub: found for sub, found in every.items() if sub in asked}

    def _known(self, loss: Sloped, facts: RowFacts) -> Tensor:
        """The total of these queries under a loss that knows its derivative; each block is let go at once."""
        (term,), total = self.step.terms, self.distillation.new_zeros(())
        allowed = self._allowed({}, facts)
        blocked = None if allowed.blocks.query_docs.all() else ~allowed.blocks.query_docs
        factor = term.rows[facts.rows] * term.weight  # (b,)
        for layer, dims in self.dims.items():
            query, docs = self.sides[layer, "cosine"]
            to_query, to_docs = self.gradients[layer, "cosine"]
            left = query.rows(facts.rows).times(self.gain)
            to_left = nested.empty_gradient(left)
            raw: list[Tensor | None] = []
            for place, logits in enumerate(nested.forward(left, docs, dims)):
                sub = SubModel(layer, dims[place])
                losses, slope = loss.slopes(logits, blocked, facts)
                part = (losses * factor).sum()
                self.parts[sub] = self.parts[sub] + part
                total = total + self.step.weights[sub] * part
                if sub == self.step.largest:
                    self._note(losses, logits, allowed, facts)
                found = Slope(slope, factor * self.step.weights[sub])
                raw.append(
                    nested.through_norms(found, logits, left, docs, place, to_left, to_docs, scratch=logits)
                )
            nested.through_products(raw, left, docs, dims, to_left, to_docs)
            _add_rows(to_query, facts.rows, to_left)
        return total

    def _all_at_once(self, loss: Sloped, device: torch.device) -> Tensor:
        """As `_known` of all chunks, all sub-models in the same kernels."""
        sides = {layer: (query, docs) for (layer, _), (query, docs) in self.sides.items()}
        work = AtOnce(loss, self.step.terms[0], self.dims, self.step.weights, sides, self.gain)
        self.gradients = {(layer, "cosine"): pair for layer, pair in work.gradients.items()}
        for facts in self.step.chunks(device, len(work.subs)):
            allowed = self._allowed({}, facts)
            noted = work.chunk(facts, ~allowed.blocks.query_docs)
            self._reports.append(RowReport(*noted, allowed.considered, allowed.removed))
        total, self.parts = work.value()
        return total

    def _derived(
        self,
        sub: SubModel,
        scores: Mapping[Similarity, Scores],
        place: int,
        allowed: Allowed,
        teachers: dict[SubModel, Tensor],
        facts: RowFacts,
        slopes: Slopes,
    ) -> Tensor:
        """One sub-model's share of the total, differentiated by autograd over its blocks alone."""
        with torch.enable_grad():
            leaves = {
                (kind, name): scores[kind][name][place].detach().requires_grad_(self.differentiate)
                for kind, name in slopes
            }
            value = self._sub_model(sub, leaves, allowed, teachers, facts)
        if self.differentiate:
            wanted = [*leaves.values(), *self.parameters]
            found: Sequence[Tensor | None] = [None] * len(wanted)
            if value.requires_grad:  # not the teacher's, where distillation is all there is
                found = torch.autograd.grad(value, wanted, allow_unused=True)
            even = torch.ones_like(facts.rows, dtype=value.dtype)
            for kept, gradient in zip(slopes.values(), found, strict=False):
                kept.append(None if gradient is None else Slope(gradient, even))
            for total, gradient in zip(self.parameter_gradients, found[len(leaves) :], strict=True):
                if gradient is not None:
                    total.add_(gradient)
        return value.detach()

    def _sub_model(
        self,
        sub: SubModel,
        leaves: Mapping[tuple[Similarity, BlockName], Tensor],
        allowed: Allowed,
        teachers: dict[SubModel, Tensor],
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
            loss = torch.stack(losses).sum(0) if losses else part.new_zeros(len(facts.rows))
            self._note(loss, next(iter(blocks.values())).query_docs, allowed, facts)
        value = self.step.weights[sub] * part
        if self.step.distill is not None and not largest:
            student, above = blocks[self.step.distill.similarity].query_docs, self.step.teachers(sub)
            for one in above:
                rows = self.step.distill.rows(student, teachers[one], allowed.blocks.query_docs, facts)
                learned = rows.sum() / len(self.step.pairing.target) / len(above)
                self.distillation = self.distillation + learned.detach()
                value = value + learned
        return value

    def _note(self, loss: Tensor, scores: Tensor, allowed: Allowed, facts: RowFacts) -> None:
        """Keep what the largest sub-model makes of these queries."""
        scores = scores.detach()
        positive = scores.gather(1, facts.target[:, None])  # (b, 1)
        better = ((scores > positive) & allowed.blocks.query_docs).any(1)
        self._reports.append(RowReport(loss.detach(), ~better, allowed.considered, allowed.removed))

    def _flow_back(
        self,
        layer: int,
        kind: Similarity,
        name: BlockName,
        slopes: list[Slope | None],
        scores: list[Tensor],
        facts: RowFacts,
    ) -> None:
        """Add one block's gradient to the vectors it was made of."""
        if all(slope is None for slope in slopes):
            return
        query, docs = self.sides[layer, kind]
        to_query, to_docs = self.gradients[layer, kind]
        from_query, to_all_docs = name.startswith("query"), name.endswith("docs")
        index = facts.rows if from_query else facts.target
        left = (query if from_query else docs).rows(index)
        to_left = nested.empty_gradient(left)
        right, to_right = (docs, to_docs) if to_all_docs else (query, to_query)
        nested.backward(slopes, scores, left, right, self.dims[layer], to_left, to_right)
        _add_rows(to_query if from_query else to_docs, index, to_left)

    def _settled(self, query: Tensor, docs: Tensor) -> list[Tensor]:
        """The gradients with respect to the inputs, in their order."""
        whole = [torch.zeros_like(query), torch.zeros_like(docs)]
        for (layer, kind), gradients in self.gradients.items():
            for all_layers, side, gradient in zip(whole, self.sides[layer, kind], gradients, strict=True):
                gradient.settle(side, self.dims[layer])
                all_layers[self.place[layer]] += gradient.values
        return [*whole, *self.parameter_gradients]


def _add_rows(whole: Gradient, index: Tensor, part: Gradient) -> None:
    """Add the gradient of the rows `index` to that of all."""
    whole.values.index_add_(0, index, part.values)
    if whole.shrink is not None and part.shrink is not None:
        whole.shrink.index_add_(1, index, part.shrink)


def _all_scores(
    query: Side, docs: Side, dims: Sequence[int], facts: RowFacts, names: Sequence[BlockName]
) -> Scores:
    left = {"query": query.rows(facts.rows)}
    if any(name.startswith("doc") for name in names):
        left["doc"] = docs.rows(facts.target)
    right = {"docs": docs, "queries": query}
    return {
        name: list(nested.forward(left[name.partition("_")[0]], right[name.partition("_")[2]], dims))
        for name in names
    }
