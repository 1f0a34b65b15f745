"""InfoNCE: how far each query's own pair stands out among what is allowed (Oord et al. 2018, 1807.03748).

One class covers the family: which similarities enter (four blocks), in one softmax or one a block, with
cosines or dot products, and how hard negatives weigh. GISTEmbed (Solatorio 2024, 2402.16829), the improved
loss of GTE (Li et al. 2023, 2308.03281) and the loss of Starbucks retrieval are settings of it.

Letters: B queries, b of them, C documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.schedule import Schedule, at, inverse
from embedtrain.objective.settings import above_zero, not_negative, one_of
from embedtrain.objective.similarity.nested import Similarity
from embedtrain.types import BlockName, Blocks, InputError, RowFacts

LARGEST_INVERSE = 100.0  # CLIP's bound (Radford et al. 2021, 2103.00020, section 2.5)
LEAST_SHARE = 1e-30  # of a softmax whose logarithm is still exact in float32
WITH_PAIR = ("query_docs", "doc_queries")  # blocks in which the row's own pair stands

Partition = Literal["joint", "separate"]
OwnPair = Literal["once", "twice"]
DocDocs = Literal["others", "positives"]
Hardness = Literal["in_batch", "hard", "all"]


class InfoNCE(nn.Module):
    """Cross-entropy of the pair (query i, its positive t_i) against everything else that is allowed.

    With s = similarity / temperature and the allowed entries of each block:

        query_docs:    documents c,     s(query_i, doc_c)     always there, holds the pair at t_i
        doc_queries:   queries j,       s(query_j, doc_t_i)   holds the pair at i
        query_queries: other queries j, s(query_i, query_j)
        doc_docs:      other documents, s(doc_t_i, doc_c)

    joint:    loss_i = log Σ_{all entries of all blocks} exp(s) - s(query_i, doc_t_i)
    separate: loss_i = mean over blocks of [ log Σ_{entries of the block} exp(s) - s(query_i, doc_t_i) ]

    Hardness adds strength · sg(similarity) to the logits of chosen negatives of query_docs, so that those the
    model already finds similar weigh more (Lan et al. 2025, 2503.04812, equation 5; for hard negatives alone
    Schechter Vera et al. 2025, EmbeddingGemma, 2509.20354). Temperature 0.05 is scale=20 in
    sentence-transformers' MultipleNegativesRankingLoss, all of whose options are here.
    """

    def __init__(
        self,
        temperature: float | Schedule = 0.05,
        learn_temperature: bool = False,
        similarity: Similarity = "cosine",
        blocks: Sequence[BlockName] = ("query_docs",),
        partition: Partition = "joint",
        own_pair: OwnPair = "once",
        doc_docs: DocDocs = "others",
        hardness: Hardness | None = None,
        hardness_strength: float | Schedule = 0.0,
        guided: bool = False,
    ) -> None:
        """Set what is compared and how.

        Args:
            temperature: divides similarities, above 0; where learned, the value to begin with.
            learn_temperature: train log(1 / temperature) as CLIP does, held to 1 / temperature <= 100.
            similarity: "cosine", or "dot" of the vectors as the model pools them.
            blocks: which similarities enter, "query_docs" among them.
            partition: "joint", one softmax over all blocks, or "separate", one for each of query_docs and
                doc_queries, averaged.
            own_pair: how often a joint softmax over query_docs and doc_queries counts the pair itself, which
                stands in both. Twice is what sentence-transformers does; the loss then ends at log 2, not 0.
            doc_docs: the documents of that block: all that "others" brought, or their "positives" alone.
            hardness: which negatives weigh more: "in_batch", brought by other queries; "hard", brought by
                the query itself; "all"; none.
            hardness_strength: 0 or more; 9 in Lan et al. (in_batch), 5 in EmbeddingGemma (hard).
            guided: refuse to train without a rule of a guide on the negatives, which makes this GISTEmbed.

        Raises:
            InputError: if a number is out of range, a word unknown, or settings have no effect together.
        """
        super().__init__()
        one_of("similarity", similarity, get_args(Similarity))
        one_of("partition", partition, get_args(Partition))
        one_of("own_pair", own_pair, get_args(OwnPair))
        one_of("doc_docs", doc_docs, get_args(DocDocs))
        if hardness is not None:
            one_of("hardness", hardness, get_args(Hardness))
        self.similarity, self.blocks = similarity, _checked_blocks(blocks)
        self.partition, self.own_pair, self.doc_docs, self.hardness = partition, own_pair, doc_docs, hardness
        self.hardness_strength = not_negative("hardness_strength", hardness_strength)
        self.needs = frozenset({"guide_rule"} if guided else ())
        self._check_together()
        self.temperature = above_zero("temperature", temperature, 0.05)
        self.log_inverse: nn.Parameter | None = _learned(temperature) if learn_temperature else None

    def _check_together(self) -> None:
        """Refuse settings that contradict each other or would do nothing."""
        pairless = [name for name in self.blocks if name not in WITH_PAIR]
        if self.partition == "separate" and pairless:
            raise InputError(
                f"partition=separate needs the pair in every block, and {' and '.join(pairless)} has none: "
                "leave it out or set partition=joint"
            )
        if self.own_pair == "twice" and not (self.partition == "joint" and "doc_queries" in self.blocks):
            raise InputError("own_pair=twice has no effect without partition=joint and doc_queries in blocks")
        if self.doc_docs == "positives" and "doc_docs" not in self.blocks:
            raise InputError("doc_docs=positives has no effect without doc_docs in blocks")
        if (self.hardness is None) != (self.hardness_strength == 0.0):
            raise InputError(
                f"hardness={self.hardness} and hardness_strength={self.hardness_strength} do nothing: "
                "set both or neither"
            )

    def inverse_temperature(self, step: int) -> Tensor | float:
        """1 / temperature, a scalar of at most 100 where it is learned.

        The bound cuts the value, not the gradient: a plain clamp would leave an overshooting temperature
        without a gradient, and so at the bound for good.
        """
        if self.log_inverse is None:
            return inverse(self.temperature, step)
        excess = (self.log_inverse - math.log(LARGEST_INVERSE)).clamp(min=0).detach()
        return torch.exp(self.log_inverse - excess)

    def rows(self, scores: Blocks, allowed: Blocks, facts: RowFacts) -> Tensor:
        """The loss of each query, (b,), 0 where nothing but the pair is allowed."""
        inverse_temperature = self.inverse_temperature(facts.step)
        logits = {name: _block(scores, name) * inverse_temperature for name in self.blocks}
        if self.hardness is not None:
            logits["query_docs"] = logits["query_docs"] + self._extra(scores.query_docs, facts)
        for name, values in logits.items():
            values.masked_fill_(~self._entries(name, allowed, facts), -torch.inf)
        if self.partition == "joint":
            together = torch.cat(list(logits.values()), 1) if len(logits) > 1 else logits["query_docs"]
            return F.cross_entropy(together, facts.target, reduction="none")
        target = {"query_docs": facts.target, "doc_queries": facts.rows}
        losses = [F.cross_entropy(values, target[name], reduction="none") for name, values in logits.items()]
        return torch.stack(losses).mean(0)

    def gain(self, step: int) -> float | None:
        """1 / temperature where only query_docs and a given temperature take part."""
        if self.log_inverse is not None or self.hardness is not None or len(self.blocks) > 1:
            return None
        return float(self.inverse_temperature(step))

    def slopes(self, logits: Tensor, blocked: Tensor | None, facts: RowFacts) -> tuple[Tensor, Tensor]:
        """(b,) losses and (b, C) their derivative by the logits of query_docs."""
        if blocked is not None:
            logits = logits.masked_fill(blocked, -torch.inf)
        if logits.device.type != "cpu":  # rare rows cannot be picked without waiting for their number
            likely = logits.log_softmax(1)  # (b, C)
            loss, share = -likely.gather(1, facts.target[:, None])[:, 0], likely.exp_()
            return loss, share.scatter_add_(1, facts.target[:, None], loss.new_full((len(loss), 1), -1.0))
        share = torch.softmax(logits, 1)  # (b, C)
        target = facts.target[:, None]
        likely = share.gather(1, target)  # (b, 1)
        loss = -likely.log()
        lost = (likely < LEAST_SHARE)[:, 0].nonzero()[:, 0]  # rounding, or underflow, in the logarithm
        if len(lost):
            loss[lost, 0] = logits[lost].logsumexp(1) - logits[lost, facts.target[lost]]
        return loss[:, 0], share.scatter_add_(1, target, -torch.ones_like(likely))

    def _entries(self, name: BlockName, allowed: Blocks, facts: RowFacts) -> Tensor:
        """What of a block enters, bool, shaped like it."""
        entries = _block(allowed, name)
        if name == "doc_docs" and self.doc_docs == "positives":
            return entries & _known(facts.positive)[None, :]
        if name == "doc_docs":
            return entries & ~_own(facts)
        if name == "doc_queries" and self.partition == "joint" and self.own_pair == "once":
            return entries.scatter(1, facts.rows[:, None], False)
        return entries

    def _extra(self, similarity: Tensor, facts: RowFacts) -> Tensor:
        """What hardness adds to the logits of query_docs, (b, C), without a gradient."""
        chosen = torch.ones_like(similarity, dtype=torch.bool)  # (b, C)
        if self.hardness != "all":
            own = _own(facts)
            chosen = own if self.hardness == "hard" else ~own
        chosen = chosen.scatter(1, facts.target[:, None], False)
        strength = not_negative("hardness_strength", at(self.hardness_strength, facts.step))
        return strength * similarity.detach() * chosen


def _learned(temperature: float | Schedule) -> nn.Parameter:
    """log(1 / temperature) as a parameter."""
    if isinstance(temperature, Schedule):
        raise InputError("temperature is a schedule and learned at once: set learn_temperature=false")
    if temperature < 1 / LARGEST_INVERSE:
        raise InputError(
            f"temperature must be at least {1 / LARGEST_INVERSE} to be learned, got {temperature}: "
            "raise it or set learn_temperature=false"
        )
    return nn.Parameter(torch.tensor(-math.log(temperature)))


def _checked_blocks(blocks: Sequence[str]) -> tuple[BlockName, ...]:
    if isinstance(blocks, str):
        raise InputError(f"blocks must be a list, got {blocks!r}: write [{blocks}]")
    for name in blocks:
        one_of("blocks", name, get_args(BlockName))
    if "query_docs" not in blocks or len(set(blocks)) < len(blocks):
        raise InputError(f"blocks must name query_docs and nothing twice, got {list(blocks)}")
    return tuple(name for name in get_args(BlockName) if name in blocks)


def _block(blocks: Blocks, name: BlockName) -> Tensor:
    block: Tensor | None = getattr(blocks, name)
    return _known(block)


def _own(facts: RowFacts) -> Tensor:
    """Documents that the row's own query brought, (b, C) bool."""
    return _known(facts.owner)[None, :] == facts.rows[:, None]


def _known(value: Tensor | None) -> Tensor:
    assert value is not None, "the caller fills every block and fact that a loss names"
    return value
