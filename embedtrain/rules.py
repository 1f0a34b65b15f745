"""Rules that take likely false negatives out: one family, for the batches of a run and for mining.

A rule compares the scores s of candidates with the score s⁺ of a positive. In a batch, scores are cosines of
a guide or of the model in training; row i is query i or its positive, and s⁺ is always the cosine of query i
and its positive. In mining, scores are the teacher's, or those of a cross-encoder in its place, and s⁺ is the
score of a labelled positive. A positive, and a text's similarity with itself, are never candidates.

`PercPos`, `MarginPos`, `Abs` and, in mining, `TopK` come from NV-Retriever (Moreira et al. 2024, 2407.15831).

Letters: b rows, C candidates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from embedtrain.objective.schedule import Schedule, at
from embedtrain.types import BlockName, InputError

Number = float | Schedule
Where = Sequence[BlockName] | None
Scorer = Literal["student", "guide"]
SCORERS: tuple[Scorer, ...] = get_args(Scorer)
BLOCKS: tuple[BlockName, ...] = get_args(BlockName)
# A text that the scorer cannot tell from the positive has the positive's similarity but for rounding, which
# differs between chunk sizes and ranks: 1e-6 is above it in float32 and below any difference with a meaning.
TIE = 1e-6


class Seen(NamedTuple):
    """What a rule knows of some rows."""

    scores: Tensor  # (b, C)
    positive: Tensor  # (b,) s⁺
    allowed: Tensor  # (b, C) bool, candidates that earlier rules left; no rule decides about others
    step: int = 0  # optimiser step: schedules are functions of it
    ranks: Tensor | None = None  # (b, C) 0-based place in the teacher's ranking; None in a batch
    tie: float = TIE  # scores no further apart count as equal; 0 in mining, which scores each pair alone


class Rule(Protocol):
    """Takes candidates out."""

    @property
    def name(self) -> str:
        """What metrics and statistics call it."""
        ...

    @property
    def by(self) -> Scorer:
        """Whose similarities it reads in a batch."""
        ...

    @property
    def blocks(self) -> tuple[BlockName, ...]:
        """Where it acts in a batch."""
        ...

    def removes(self, seen: Seen) -> Tensor:
        """(b, C) bool, True where a candidate must go; what is not allowed may be either."""
        ...


class MarginPos:
    """A candidate stays if s < s⁺ - margin: GISTEmbed (Solatorio 2024, 2402.16829) and TopK-MarginPos.

    GISTEmbed's margin is 0, NV-Retriever's best was 0.05, Qwen3-Embedding (2506.05176) tolerates with -0.1 by
    the model in training. Candidates with s = s⁺ - margin go, where GISTEmbed's code keeps them: the scorer
    cannot tell them from the positive.
    """

    def __init__(
        self, margin: Number = 0.0, *, by: Scorer = "guide", blocks: Where = None, name: str | None = None
    ) -> None:
        """Set the rule.

        Args:
            margin: positive is stricter, negative more tolerant. A number or a schedule.
            by: of a batch: cosines of the "guide" or of the "student", the model in training.
            blocks: of a batch: where it acts; query_docs, query_queries, doc_queries, doc_docs when left out.
            name: what metrics call it; "margin_pos" or "student_margin_pos" when left out.

        Raises:
            InputError: for an unknown scorer or block, or a margin that is no finite number.
        """
        self.margin = _number("margin", margin)
        self.by, self.blocks, self.name = _in_batch("margin_pos", by, blocks, name)

    def removes(self, seen: Seen) -> Tensor:
        """As `Rule.removes`."""
        return _not_below(seen, seen.positive - at(self.margin, seen.step))


class PercPos:
    """A candidate stays if s < p s⁺ (TopK-PercPos); 0.95 was NV-Retriever's best.

    For s⁺ < 0 the published formula lets candidates above the positive through, since p s⁺ > s⁺. There the
    bound is s⁺ - (1 - p)|s⁺| = (2 - p) s⁺, as in sentence-transformers, whose bound is this one everywhere.
    """

    def __init__(
        self, perc_pos: Number = 0.95, *, by: Scorer = "guide", blocks: Where = None, name: str | None = None
    ) -> None:
        """Set p, above 0 and below 2, or a schedule; the rest as `MarginPos`. Raises InputError likewise."""
        self.perc_pos = _number("perc_pos", perc_pos)
        if isinstance(self.perc_pos, float) and not 0.0 < self.perc_pos < 2.0:
            raise InputError(f"perc_pos must be above 0 and below 2, got {perc_pos}")
        self.by, self.blocks, self.name = _in_batch("perc_pos", by, blocks, name)

    def removes(self, seen: Seen) -> Tensor:
        """As `Rule.removes`."""
        p, positive = at(self.perc_pos, seen.step), seen.positive
        return _not_below(seen, torch.where(positive < 0, (2 - p) * positive, p * positive))


class Abs:
    """A candidate stays if s < most, whatever its positive (TopK-Abs)."""

    def __init__(
        self, most: Number = 0.7, *, by: Scorer = "guide", blocks: Where = None, name: str | None = None
    ) -> None:
        """Set the bound, a number or a schedule; the rest as `MarginPos`. Raises InputError likewise."""
        self.most = _number("most", most)
        self.by, self.blocks, self.name = _in_batch("abs", by, blocks, name)

    def removes(self, seen: Seen) -> Tensor:
        """As `Rule.removes`."""
        return ~(seen.scores < at(self.most, seen.step))


class MinScore:
    """A candidate stays if s >= least: what is far from the query teaches little."""

    def __init__(
        self, least: Number, *, by: Scorer = "guide", blocks: Where = None, name: str | None = None
    ) -> None:
        """Set the bound, a number or a schedule; the rest as `MarginPos`. Raises InputError likewise."""
        self.least = _number("least", least)
        self.by, self.blocks, self.name = _in_batch("min_score", by, blocks, name)

    def removes(self, seen: Seen) -> Tensor:
        """As `Rule.removes`."""
        return ~(seen.scores >= at(self.least, seen.step))


class TopK:
    """The k nearest candidates go, whatever the score of the positive.

    Mining counts ranks before any rule and before a cross-encoder (shifted top-k); sentence-transformers'
    `range_min` skips the first k that its other rules leave. A batch counts in each block what earlier rules
    left; all that tie with the k-th go with it, so that the order of documents never decides, and a row with
    at most k candidates loses all.
    """

    def __init__(
        self, k: int, *, by: Scorer = "guide", blocks: Where = None, name: str | None = None
    ) -> None:
        """Set k, 1 or more; the rest as `MarginPos`. Raises InputError likewise."""
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError(f"k must be a whole number of at least 1, got {k!r}")
        self.k = k
        self.by, self.blocks, self.name = _in_batch("top_k", by, blocks, name)

    def removes(self, seen: Seen) -> Tensor:
        """As `Rule.removes`."""
        if seen.ranks is not None:
            return seen.ranks < self.k
        candidates = seen.scores.masked_fill(~seen.allowed, -torch.inf)
        k = min(self.k, candidates.shape[1])
        kth = candidates.topk(k, dim=1).values[:, -1:]  # (b, 1); -inf in a row with fewer than k
        return candidates >= kth - seen.tie


def checked_rules(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules. Raises InputError for something else in the list, or two of one name."""
    for rule in rules:
        if not callable(getattr(rule, "removes", None)):
            raise InputError(
                f"rules must be a list of rules, got {rule!r} among them. Choose negatives=NAME or "
                "selection=NAME with rules"
            )
    twice = [name for name, count in Counter(rule.name for rule in rules).items() if count > 1]
    if twice:
        raise InputError(
            f"two rules are called {twice[0]}, and metrics count what each removes: set name: NAME in one"
        )
    return tuple(rules)


Similarities = Callable[[Scorer, BlockName], Tensor]  # (b, n) cosines of a block


def apply_rules(
    rules: Sequence[Rule],
    blocks: dict[BlockName, Tensor],
    positives: dict[BlockName, Tensor],
    similar: Similarities,
    step: int,
) -> dict[str, Tensor]:
    """Let each rule in turn clear negatives in `blocks`, in place; (b,) int64 documents that each removed.

    Args:
        rules: in their order; each sees what those before it left.
        blocks: (b, n) bool, what is allowed; query_docs among them.
        positives: (b,) column of the positive in the blocks that have one, never cleared.
        similar: cosines of a block by a scorer.
        step: optimiser step.
    """
    if not rules:
        return {}
    target = positives["query_docs"]
    rows = torch.arange(len(target), device=target.device)
    removed = {}
    for rule in rules:
        positive = similar(rule.by, "query_docs")[rows, target]  # (b,)
        removed[rule.name] = torch.zeros_like(rows)
        for name in rule.blocks:
            if name not in blocks:
                continue
            left = blocks[name].clone()
            if name in positives:
                left[rows, positives[name]] = False
            out = rule.removes(Seen(similar(rule.by, name), positive, left, step)) & left
            blocks[name] &= ~out
            if name == "query_docs":
                removed[rule.name] = row_counts(out)
    return removed


def row_counts(mask: Tensor) -> Tensor:
    """(b,) int64 True values of a (b, n) mask, in pieces: PyTorch's sum makes 8 bytes of every one first."""
    first, *others = (piece.sum(1) for piece in torch.split(mask, 8_192, dim=1))
    return sum(others, first)


def _not_below(seen: Seen, bound: Tensor) -> Tensor:
    """Where a score is not below the bound (b,) of its row; NaN is not."""
    return (seen.scores < (bound - seen.tie)[:, None]).logical_not_()


def _in_batch(
    kind: str, by: str, blocks: Where, name: str | None
) -> tuple[Scorer, tuple[BlockName, ...], str]:
    """(scorer, blocks, name) of a rule. Raises InputError for a scorer or block that does not exist."""
    scorer = next((scorer for scorer in SCORERS if by == scorer), None)
    if scorer is None:
        raise InputError(f'by must be "student" or "guide", got {by!r}')
    chosen = BLOCKS if blocks is None else blocks
    if not chosen or isinstance(chosen, str) or any(block not in BLOCKS for block in chosen):
        raise InputError(f"blocks must be some of {', '.join(BLOCKS)}, got {blocks!r}")
    return scorer, tuple(chosen), name or (kind if scorer == "guide" else f"{scorer}_{kind}")


def _number(name: str, value: Number) -> Number:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number or a schedule, got {value!r}")
    return float(value)
