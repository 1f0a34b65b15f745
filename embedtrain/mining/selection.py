"""From candidates to negatives: the rules in turn, then the best or a sample of what they leave.

Letters: b queries, C candidates, K negatives of a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from embedtrain.rules.mining import Candidates, Mask, Rule, SkipTop
from embedtrain.types import InputError

Reference = Literal["lowest", "highest"]
Integers = NDArray[np.int64]


class Draw(Protocol):
    """Chooses among survivors."""

    def __call__(self, survivors: Integers, count: int, key: tuple[int, ...]) -> Integers:
        """At most `count` of one query's survivors (columns by falling score), in their order.

        `key` is a function of seed, step and query: a draw depends on nothing else.
        """
        ...


class Best:
    """The K best survivors."""

    def __call__(self, survivors: Integers, count: int, key: tuple[int, ...]) -> Integers:
        """As `Draw`."""
        return survivors[:count]


class Sample:
    """K of the first `among` survivors, all equally likely; 4 of 10 were NV-Retriever's best."""

    def __init__(self, among: int = 10) -> None:
        """Set how many survivors may be drawn. Raises InputError below 1."""
        if among < 1:
            raise InputError(f"among must be 1 or more, got {among}")
        self.among = among

    def __call__(self, survivors: Integers, count: int, key: tuple[int, ...]) -> Integers:
        """As `Draw`."""
        near = survivors[: self.among]
        if len(near) <= count:
            return near
        drawn = np.random.default_rng(key).choice(len(near), size=count, replace=False)
        return near[np.sort(drawn)]


class Verdict(NamedTuple):
    """What became of the candidates of some queries."""

    kept: Mask  # (b, C) bool, left by all rules
    removed: dict[str, Mask]  # rule -> (b, C) bool, taken out by it and by none before it
    chosen: Integers  # (b, K) columns; -1 where a query has fewer


class Selection:
    """How negatives are chosen.

    Args:
        rules: each sees all candidates; one that two rules take out is counted for the first.
        per_row: K, most negatives of a query. Those that rules took out never fill up what is missing.
        depth: ranks that are looked at, counted among documents that are no labelled positives.
        reference: of several positives, the one whose score rules compare with. "lowest" is the strictest.
        draw: chooses among what the rules leave; the best when None.

    Raises:
        InputError: for a value out of range, or two rules of one name.
    """

    def __init__(
        self,
        *,
        rules: Sequence[Rule] = (),
        per_row: int = 4,
        depth: int = 100,
        reference: Reference = "lowest",
        draw: Draw | None = None,
    ) -> None:
        if per_row < 1 or depth < per_row:
            raise InputError(f"per_row must be in 1..depth, got per_row {per_row}, depth {depth}")
        if reference not in get_args(Reference):
            raise InputError(f'reference must be "lowest" or "highest", got {reference!r}')
        if any(not hasattr(rule, "removes") for rule in rules):
            raise InputError(f"rules must be a list of rules, got {rules!r}. Choose selection=NAME with some")
        names = [rule.name for rule in rules]
        if len(set(names)) < len(names):
            raise InputError(f"two rules have one name: {', '.join(names)}. Give each its own, name: NAME")
        skipped = max((rule.first for rule in rules if isinstance(rule, SkipTop)), default=0)
        if depth - skipped < per_row:
            raise InputError(
                f"depth {depth} less the first {skipped} ranks leaves fewer candidates than per_row "
                f"{per_row}: set depth to {skipped + per_row} or more"
            )
        self.rules, self.per_row, self.depth, self.reference = tuple(rules), per_row, depth, reference
        self.draw: Draw = Best() if draw is None else draw

    def reference_of(self, scores: NDArray[np.float64]) -> float:
        """The score that rules compare with, of one query's positives."""
        return float(scores.min() if self.reference == "lowest" else scores.max())

    def choose(self, seen: Candidates, there: Mask, keys: Sequence[tuple[int, ...]]) -> Verdict:
        """The negatives of b queries, whose candidates come by falling score.

        Args:
            seen: scores, references, ranks.
            there: (b, C) bool, False where a query has fewer candidates.
            keys: of each query, for draws.
        """
        kept = there.copy()
        removed = {}
        for rule in self.rules:
            removed[rule.name] = rule.removes(seen) & kept
            kept &= ~removed[rule.name]
        chosen = np.full((len(kept), self.per_row), -1, dtype=np.int64)
        for row, key in enumerate(keys):
            columns = self.draw(np.flatnonzero(kept[row]), self.per_row, key)
            chosen[row, : len(columns)] = columns
        return Verdict(kept, removed, chosen)
