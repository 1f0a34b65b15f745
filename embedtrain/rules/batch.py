"""Rules that take likely false negatives out, by the similarities of the model in training or of a guide.

A rule sees rows of similarities; row i stands for query i or for its positive. Its threshold is always the
scorer's similarity of query i and its positive. Positives, and a text's similarity with itself, are never
shown to a rule as candidates.

Letters: b rows, n columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from embedtrain.objective.schedule import Schedule, at
from embedtrain.types import BlockName, InputError

Scorer = Literal["student", "guide"]
Strategy = Literal["absolute", "relative"]
SCORERS: tuple[Scorer, ...] = get_args(Scorer)
BLOCKS: tuple[BlockName, ...] = get_args(BlockName)
# A text that the scorer cannot tell from the positive has the positive's similarity but for rounding, which
# differs between chunk sizes and ranks: 1e-6 is above it in float32 and below any difference with a meaning.
TIE = 1e-6


class Rule(Protocol):
    """Takes negatives out."""

    @property
    def name(self) -> str:
        """What logs call it."""
        ...

    @property
    def by(self) -> Scorer:
        """Whose similarities it reads."""
        ...

    @property
    def blocks(self) -> tuple[BlockName, ...]:
        """Where it acts."""
        ...

    def removes(self, similar: Tensor, positive: Tensor, allowed: Tensor, step: int) -> Tensor:
        """(b, n) bool, True where a candidate must go.

        Args:
            similar: (b, n) cosines of the row with everything.
            positive: (b,) cosine of the row's query and its positive.
            allowed: (b, n) bool, the negatives that are left. What is said elsewhere is not looked at.
            step: optimiser step.
        """
        ...


class Margin:
    """Negatives as similar as the positive, less a margin, go: GISTEmbed (Solatorio 2024, 2402.16829).

    With s the cosine of a candidate and t that of the positive, a candidate goes where
        absolute: s > t - margin        relative: s > t - |t| margin
    as in sentence-transformers' `margin_strategy`. A negative margin tolerates: Qwen3-Embedding (2506.05176)
    removes s > t + 0.1 by the model in training. Candidates with s = t (but for rounding, 1e-6) go too, where
    the reference keeps them: the scorer cannot tell them from the positive.
    """

    def __init__(
        self,
        margin: float | Schedule = 0.0,
        *,
        by: Scorer = "guide",
        strategy: Strategy = "absolute",
        blocks: Sequence[BlockName] | None = None,
        name: str | None = None,
    ) -> None:
        """Set the rule.

        Args:
            margin: 0 is GISTEmbed; positive is stricter, negative more tolerant. A number or a schedule.
            by: whose cosines are compared: those of the "guide" or of the "student", the model in training.
            strategy: "absolute" or "relative".
            blocks: where it acts; all of query_docs, query_queries, doc_queries, doc_docs when left out.
            name: what logs call it; "guide_margin" or "student_margin" when left out.

        Raises:
            InputError: for an unknown scorer, strategy or block, or a margin that is no finite number.
        """
        self.by, self.blocks = scorer_named(by), blocks_named(blocks)
        if strategy not in get_args(Strategy):
            raise InputError(f'strategy must be "absolute" or "relative", got {strategy!r}')
        self.margin, self.strategy = _number("margin", margin), strategy
        self.name = name or f"{by}_margin"

    def removes(self, similar: Tensor, positive: Tensor, allowed: Tensor, step: int) -> Tensor:
        """As `Rule.removes`."""
        margin = at(self.margin, step)
        threshold = positive - (margin if self.strategy == "absolute" else positive.abs() * margin)
        return similar > threshold[:, None] - TIE


class TopK:
    """The k most similar negatives of a row go, whatever the similarity of its positive.

    All that tie with the k-th (but for rounding, 1e-6) go with it, so that the order of the documents never
    decides. A row with at most k negatives loses all of them.
    """

    def __init__(
        self,
        k: int,
        *,
        by: Scorer = "guide",
        blocks: Sequence[BlockName] | None = None,
        name: str | None = None,
    ) -> None:
        """Set the rule; `by` and `blocks` as `Margin`, `k` counts in each block by itself.

        Raises:
            InputError: for an unknown scorer or block, or k below 1.
        """
        self.by, self.blocks = scorer_named(by), blocks_named(blocks)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError(f"k must be a whole number of at least 1, got {k!r}")
        self.k = k
        self.name = name or f"{by}_top_k"

    def removes(self, similar: Tensor, positive: Tensor, allowed: Tensor, step: int) -> Tensor:
        """As `Rule.removes`."""
        open_to_choice = similar.masked_fill(~allowed, -torch.inf)
        k = min(self.k, similar.shape[1])
        kth = open_to_choice.topk(k, dim=1).values[:, -1:]  # (b, 1); -inf in a row with fewer than k
        return open_to_choice >= kth - TIE


class MaxSimilarity:
    """Negatives above a fixed similarity go: TopK-Abs of NV-Retriever (Moreira et al. 2024, 2407.15831)."""

    def __init__(
        self,
        most: float | Schedule,
        *,
        by: Scorer = "guide",
        blocks: Sequence[BlockName] | None = None,
        name: str | None = None,
    ) -> None:
        """Set the largest cosine that stays, a number or a schedule; `by` and `blocks` as `Margin`.

        Raises:
            InputError: for an unknown scorer or block, or a bound that is no finite number.
        """
        self.by, self.blocks = scorer_named(by), blocks_named(blocks)
        self.most = _number("most", most)
        self.name = name or f"{by}_max_similarity"

    def removes(self, similar: Tensor, positive: Tensor, allowed: Tensor, step: int) -> Tensor:
        """As `Rule.removes`."""
        return similar > at(self.most, step)


def row_counts(mask: Tensor) -> Tensor:
    """(b,) int64 True values of a (b, n) mask, in pieces: PyTorch's sum makes 8 bytes of every one first."""
    zero = torch.zeros(len(mask), dtype=torch.int64, device=mask.device)
    return sum((piece.sum(1) for piece in torch.split(mask, 8_192, dim=1)), zero)


def scorer_named(by: str) -> Scorer:
    """`by` itself. Raises InputError unless it names a scorer."""
    for scorer in SCORERS:
        if by == scorer:
            return scorer
    raise InputError(f'by must be "student" or "guide", got {by!r}')


def blocks_named(blocks: Sequence[BlockName] | None) -> tuple[BlockName, ...]:
    """The blocks asked for, all of them when None. Raises InputError for one that does not exist, or none."""
    if blocks is None:
        return BLOCKS
    unknown = [name for name in blocks if name not in BLOCKS]
    if unknown or not blocks or isinstance(blocks, str):
        raise InputError(f"blocks must be some of {', '.join(BLOCKS)}, got {blocks!r}")
    return tuple(blocks)


def _number(name: str, value: float | Schedule) -> float | Schedule:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number or a schedule, got {value!r}")
    return float(value)


Similarities = Callable[[Scorer, BlockName], Tensor]  # (b, n) cosines of a block


def take_out(
    rules: Sequence[Rule],
    blocks: dict[BlockName, Tensor],
    positives: dict[BlockName, Tensor],
    similar: Similarities,
    step: int,
) -> dict[str, Tensor]:
    """Let each rule in turn clear negatives in `blocks`, in place; (b,) int64 documents that each took out.

    Args:
        rules: in their order; each sees what those before it left.
        blocks: (b, n) bool, what is allowed; query_docs among them.
        positives: (b,) column of the positive in the blocks that have one, never cleared.
        similar: cosines of a block by a scorer.
        step: optimiser step.
    """
    everyone = torch.arange(len(positives["query_docs"]), device=positives["query_docs"].device)
    removed = {}
    for rule in rules:
        threshold = similar(rule.by, "query_docs")[everyone, positives["query_docs"]]  # (b,)
        removed[rule.name] = torch.zeros_like(everyone)
        for name in rule.blocks:
            if name not in blocks:
                continue
            left = blocks[name].clone()
            if name in positives:
                left[everyone, positives[name]] = False
            out = rule.removes(similar(rule.by, name), threshold, left, step) & left
            blocks[name] &= ~out
            if name == "query_docs":
                removed[rule.name] = row_counts(out)
    return removed
