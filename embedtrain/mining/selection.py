"""From candidates to negatives: the rules in turn, then the best or a sample of what they leave.

Letters: b queries, C candidates, K negatives of a query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.rules import BLOCKS, Rule, Seen, TopK, checked_rules
from embedtrain.types import InputError

Reference = Literal["lowest", "highest"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Candidates(NamedTuple):
    """Candidates of some queries by falling score; a labelled positive is none."""

    there: Mask  # (b, C) False where a query has fewer candidates
    scores: Floats  # (b, C) of the teacher, or of the cross-encoder where there is one
    reference: Floats  # (b,) score of the positive that rules compare with
    ranks: Integers  # (b, C) 0-based place in the teacher's ranking before any rule


# At most `count` of one query's survivors (columns by falling score), in their order. `key` is a function of
# seed, step and query, and a draw depends on nothing else.
Draw = Callable[[Integers, int, tuple[int, ...]], Integers]


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


class Choice(NamedTuple):
    """What rules and draw made of some candidates."""

    removed: dict[str, Mask]  # rule -> (b, C) what it removed and none before it
    columns: Integers  # (b, K) those chosen; -1 where a query has fewer


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
        self.rules = checked_rules(rules)
        for rule in self.rules:
            if rule.by != "guide" or set(rule.blocks) != set(BLOCKS):
                raise InputError(
                    f"rule {rule.name}: by and blocks are settings of a batch, and mining compares by its "
                    "teacher: leave them out"
                )
        skipped = max((rule.k for rule in self.rules if isinstance(rule, TopK)), default=0)
        if depth - skipped < per_row:
            raise InputError(
                f"depth {depth} less the first {skipped} ranks leaves fewer candidates than per_row "
                f"{per_row}: set depth to {skipped + per_row} or more"
            )
        self.per_row, self.depth, self.reference = per_row, depth, reference
        self.draw: Draw = _best if draw is None else draw

    def reference_of(self, scores: NDArray[np.float64]) -> float:
        """The score that rules compare with, of one query's positives."""
        return float(scores.min() if self.reference == "lowest" else scores.max())

    def choose(self, candidates: Candidates, keys: Sequence[tuple[int, ...]], *, step: int = 0) -> Choice:
        """The negatives of b queries.

        Args:
            candidates: of these queries.
            keys: of each query, for draws.
            step: optimiser step, which schedules of the rules are functions of.
        """
        scores, reference, ranks = map(torch.from_numpy, candidates[1:])
        left = torch.from_numpy(candidates.there.copy())
        removed = {}
        for rule in self.rules:
            out = rule.removes(Seen(scores, reference, left, step, ranks, tie=0.0)) & left
            removed[rule.name] = out.numpy()
            left &= ~out
        chosen = np.full((len(left), self.per_row), -1, dtype=np.int64)
        for row, key in enumerate(keys):
            columns = self.draw(np.flatnonzero(left[row].numpy()), self.per_row, key)
            chosen[row, : len(columns)] = columns
        return Choice(removed, chosen)


def _best(survivors: Integers, count: int, key: tuple[int, ...]) -> Integers:
    return survivors[:count]
