"""AnglE: ranking by angles in the complex plane, alone and mixed with CoSENT and in-batch negatives.

Source: Li and Li 2023, AnglE-optimized Text Embeddings, 2309.12871, and the authors' code (v0.6.1). Its data
formats are: A, pairs with labels (`AnglE`); B, pairs without (plain `InfoNCE` at temperature 0.05); C, query,
positive and negative (`AnglETriples`).

Letters: B queries, b those of a chunk, C documents, d coordinates, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.losses.pairs import Labels, Ranking, labelled_pairs, picked, ranking, there
from embedtrain.objective.losses.scored import CoSENT, cosine, ranked
from embedtrain.objective.schedule import Schedule, at, inverse
from embedtrain.objective.settings import above_zero, some_weight
from embedtrain.objective.similarity.blocks import contrast
from embedtrain.objective.similarity.nested import Similarity
from embedtrain.types import BlockName, Blocks, InputError, Pairing, RowFacts


def angle_similarity(left: Tensor, right: Tensor) -> Tensor:
    """|cos + sin| of each pair of rows, (P,), in 0..√2: half of the coordinates is real, the rest imaginary.

    With unit vectors x = a + ib and y = c + id: |Σ(ac + bd) + Σ(bc - ad)|, the sum of the real and imaginary
    parts of x / y over the moduli. Every cut pairs the coordinates anew: j meets j + d/2 of the prefix.

    Args:
        left: (P, d), not normalised, d even.
        right: (P, d) likewise.

    Raises:
        InputError: if d is odd.
    """
    width = left.shape[-1]
    if width % 2:
        raise InputError(
            f"the angle loss pairs the halves of a vector, and dim {width} is odd: "
            "choose even dims in the plan"
        )
    x, y = F.normalize(left, dim=-1), F.normalize(right, dim=-1)
    (a, b), (c, d) = x.chunk(2, dim=-1), y.chunk(2, dim=-1)
    return ((x * y).sum(-1) + (b * c - a * d).sum(-1)).abs()


class Angle(CoSENT):
    """Ranks |cos + sin| of the pairs as their labels are ranked; the rest as `CoSENT`.

    log(1 + Σ_{p,r: y_p < y_r} exp((a_p - a_r) / temperature)) with a of `angle_similarity`, over pairs of one
    task. Equals sentence-transformers' AnglELoss. Norms play no part; every dim must be even.
    """

    def __init__(self, temperature: float | Schedule = 0.05, labels: Labels = "scores") -> None:
        """As `CoSENT`."""
        super().__init__(temperature, labels)
        self.needs = self.needs | {"even_dims"}

    similarity = staticmethod(angle_similarity)


class Scored(NamedTuple):
    """What `AnglE` works on."""

    pairs: Ranking
    positive: Tensor  # (p,) int64 queries of the pairs that count as positive


class InBatch(nn.Module):
    """Both texts of each pair against all others of the batch: a row loss, the sum of two cross-entropies."""

    similarity: Similarity = "cosine"
    blocks: Sequence[BlockName] = ("query_docs", "query_queries", "doc_queries", "doc_docs")

    def __init__(self, inverse_temperature: float) -> None:
        super().__init__()
        self.inverse_temperature = inverse_temperature

    def rows(self, scores: Blocks, allowed: Blocks, facts: RowFacts) -> Tensor:
        """(b,) losses."""
        from_query = self._half(
            (scores.query_docs, scores.query_queries),
            (allowed.query_docs, allowed.query_queries),
            facts.target,
        )
        from_doc = self._half(
            (scores.doc_queries, scores.doc_docs), (allowed.doc_queries, allowed.doc_docs), facts.rows
        )
        return from_query + from_doc

    def _half(
        self, scores: tuple[Tensor | None, ...], allowed: tuple[Tensor | None, ...], pair: Tensor
    ) -> Tensor:
        """Cross-entropy of the column `pair` (b,) among what is allowed, (b,)."""
        logits = self.inverse_temperature * torch.cat(cast(tuple[Tensor, ...], scores), 1)  # (b, C + B)
        entries = torch.cat(cast(tuple[Tensor, ...], allowed), 1)
        return F.cross_entropy(torch.where(entries, logits, -torch.inf), pair, reduction="none")


class OverDocuments(nn.Module):
    """Each query against all documents of the batch or its positives alone: a row loss."""

    similarity: Similarity = "cosine"
    blocks: Sequence[BlockName] = ("query_docs",)

    def __init__(self, inverse_temperature: float, positives_only: bool) -> None:
        super().__init__()
        self.inverse_temperature, self.positives_only = inverse_temperature, positives_only

    def rows(self, scores: Blocks, allowed: Blocks, facts: RowFacts) -> Tensor:
        """(b,) losses."""
        entries = allowed.query_docs  # (b, C)
        if self.positives_only:
            entries = entries & cast(Tensor, facts.positive)[None, :]
        logits = torch.where(entries, self.inverse_temperature * scores.query_docs, -torch.inf)
        return F.cross_entropy(logits, facts.target, reduction="none")


class AnglE(nn.Module):
    """Pairs with labels (format A): cosine_weight · CoSENT + ibn_weight · in-batch + angle_weight · Angle.

    The in-batch part is cross-entropy over cosines, each text of each pair that is scored `positive_from` or
    more against all other texts of the batch, queries and documents alike, its partner being the target:

        1 / 2B · Σ_{i: y_i >= positive_from} Σ_{x in pair i} [ log Σ_{z ≠ x} exp(s cos(x, z)) - s c_i ]

    Pairs below are negatives of the others and keep their place in the mean. The authors' code contrasts
    everything but the text itself; here the batch's rules decide, so equal texts and labelled positives stay
    out.
    """

    needs = frozenset({"scores", "even_dims"})

    def __init__(
        self,
        cosine_weight: float | Schedule = 0.0,
        ibn_weight: float | Schedule = 30.0,
        angle_weight: float | Schedule = 1.0,
        temperature: float | Schedule = 0.05,
        positive_from: float = 1.0,
    ) -> None:
        """Set the mixture; the defaults are the authors' for BERT on NLI.

        Args:
            cosine_weight: of the ranking of cosines.
            ibn_weight: of the in-batch negatives.
            angle_weight: of the ranking of angles.
            temperature: of all three, above 0.
            positive_from: the lowest score of a pair that counts as positive among in-batch negatives; set it
                to 4 for scores of 0..5.

        Raises:
            InputError: on a negative weight, a temperature that is not above 0, or weights that are all 0.
        """
        super().__init__()
        some_weight(cosine_weight=cosine_weight, ibn_weight=ibn_weight, angle_weight=angle_weight)
        self.cosine_weight, self.ibn_weight, self.angle_weight = cosine_weight, ibn_weight, angle_weight
        self.temperature = above_zero("temperature", temperature, 0.05)
        self.positive_from = positive_from

    def pick(self, pairing: Pairing) -> Scored:
        """The pairs by their scores. Raises InputError if none has one."""
        pairs = labelled_pairs("scores", "AnglE", pairing)
        (positive,) = there(pairing, pairs.query[pairs.label >= self.positive_from])
        return Scored(ranking(pairs, pairing), positive)

    def forward(self, query: Tensor, docs: Tensor, pairing: Pairing, scored: Scored | None = None) -> Tensor:
        """The loss of the batch, a scalar >= 0.

        As `Loss`; of the pairing it reads the target of each query, the scores, the candidates.

        Raises:
            InputError: if no pair carries a score or d is odd.
        """
        scored = picked(self, query, docs, pairing) if scored is None else scored
        inverse_temperature = inverse(self.temperature, pairing.step)
        total = _rankings(self, query, docs, scored.pairs, pairing.step)
        weight = at(self.ibn_weight, pairing.step)
        if weight:
            factor = query.new_zeros(len(query))  # (B,)
            factor[scored.positive] = 1 / (2 * len(query))
            total = total + weight * contrast(InBatch(inverse_temperature), query, docs, pairing, factor)
        return total


class AnglETriples(nn.Module):
    """Queries with hard negatives (format C), any number of them.

    (ibn_weight · NCE(positives) + hard_weight · NCE(all documents)) / 2 + angle_weight · Angle
    + cosine_weight · CoSENT, NCE being InfoNCE of each query over the batch's positives alone or over all its
    documents, the rankings those of every positive (1) above every own hard negative (0).
    """

    needs = frozenset({"negatives", "even_dims"})

    def __init__(
        self,
        cosine_weight: float | Schedule = 0.0,
        ibn_weight: float | Schedule = 1.0,
        hard_weight: float | Schedule = 1.0,
        angle_weight: float | Schedule = 0.02,
        temperature: float | Schedule = 0.05,
    ) -> None:
        """Set the mixture; the defaults are the authors'.

        Args:
            cosine_weight: of the ranking of cosines.
            ibn_weight: of the contrast with the positives of the batch.
            hard_weight: of the contrast with all documents of the batch ("cln" there).
            angle_weight: of the ranking of angles.
            temperature: of all four, above 0.

        Raises:
            InputError: on a negative weight, a temperature that is not above 0, or weights that are all 0.
        """
        super().__init__()
        some_weight(
            cosine_weight=cosine_weight,
            ibn_weight=ibn_weight,
            hard_weight=hard_weight,
            angle_weight=angle_weight,
        )
        self.cosine_weight, self.angle_weight = cosine_weight, angle_weight
        self.ibn_weight, self.hard_weight = ibn_weight, hard_weight
        self.temperature = above_zero("temperature", temperature, 0.05)

    def pick(self, pairing: Pairing) -> Ranking:
        """Positives above own negatives. Raises InputError if the batch has no hard negative."""
        return ranking(labelled_pairs("negatives", "AnglETriples", pairing), pairing)

    def forward(self, query: Tensor, docs: Tensor, pairing: Pairing, pairs: Ranking | None = None) -> Tensor:
        """The loss of the batch, a scalar >= 0.

        As `Loss`; of the pairing it reads targets, owners and candidates.

        Raises:
            InputError: if the batch has no hard negative or d is odd.
        """
        pairs = picked(self, query, docs, pairing) if pairs is None else pairs
        step, inverse_temperature = pairing.step, inverse(self.temperature, pairing.step)
        even = query.new_full((len(query),), 1 / (2 * len(query)))  # (B,)
        total = _rankings(self, query, docs, pairs, step)
        for weight, loss in (
            (at(self.ibn_weight, step), OverDocuments(inverse_temperature, positives_only=True)),
            (at(self.hard_weight, step), OverDocuments(inverse_temperature, positives_only=False)),
        ):
            if weight:
                total = total + weight * contrast(loss, query, docs, pairing, even)
        return total


def _rankings(
    mixture: AnglE | AnglETriples, query: Tensor, docs: Tensor, pairs: Ranking, step: int
) -> Tensor:
    """The weighted rankings of cosines and of angles."""
    total, inverse_temperature = query.new_zeros(()), inverse(mixture.temperature, step)
    left, right = query[pairs.query], docs[pairs.doc]
    for weight, similarity in ((mixture.cosine_weight, cosine), (mixture.angle_weight, angle_similarity)):
        if factor := at(weight, step):
            total = total + factor * ranked(inverse_temperature * similarity(left, right), pairs)
    return total
