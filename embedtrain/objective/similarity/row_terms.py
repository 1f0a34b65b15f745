"""What a row loss is: a loss of each query from its row of similarities. What one step evaluates of them.

Letters: B queries, b those of a chunk, C documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from embedtrain.objective.similarity.nested import Similarity
from embedtrain.objective.teachers import Teachers, teachers_of
from embedtrain.types import BlockName, Blocks, Pairing, RowFacts, SubModel

BUDGET = 2**21  # similarities of one block held at a time: 8 MiB of float32, a cache of a CPU
DEVICE_BUDGET = 2**26  # of all blocks of a GPU together: 256 MiB, of which about four are held
FEWEST_ROWS = 16  # narrower chunks would make the matrix products slow
ORDER: tuple[BlockName, ...] = ("query_docs", "query_queries", "doc_queries", "doc_docs")


def budget_on(device: torch.device, budget: int | None = None) -> int:
    """Similarities held at a time: `budget`, or where nobody says how many, what fits the device."""
    if budget is not None:
        return budget
    return BUDGET if device.type == "cpu" else DEVICE_BUDGET


def chunk_rows(device: torch.device, budget: int | None, columns: int, blocks: int) -> int:
    """Queries of a chunk against `columns` documents, in `blocks` blocks that are held together on a GPU."""
    together = 1 if device.type == "cpu" else blocks
    return max(budget_on(device, budget) // max(columns * together, 1), FEWEST_ROWS)


class RowLoss(Protocol):
    """A loss of each query from its row of similarities; an `nn.Module`."""

    similarity: Similarity
    blocks: Sequence[BlockName]

    def rows(self, scores: Blocks, allowed: Blocks, facts: RowFacts) -> Tensor:
        """(b,) losses; a row uses nothing of the other rows."""
        ...


@runtime_checkable
class Sloped(Protocol):
    """A row loss that knows its own derivative, which takes half the passes of autograd over the block."""

    def gain(self, step: int) -> float | None:
        """What `slopes` wants the similarities times; None where the derivative is left to autograd."""
        ...

    def slopes(self, logits: Tensor, blocked: Tensor | None, facts: RowFacts) -> tuple[Tensor, Tensor]:
        """(b,) losses and (b, C) the derivative of each by its row of gain · similarity of query_docs.

        `blocked` (b, C) bool are the documents that are no candidates, None where there are none such.
        """
        ...


class RowDistill(Protocol):
    """What a sub-model learns from larger ones, query by query; an `nn.Module`.

    One that has `teachers` says from which, any other has the largest teach.
    """

    similarity: Similarity

    def rows(self, student: Tensor, teacher: Tensor, allowed: Tensor, facts: RowFacts) -> Tensor:
        """(b,) from the similarities (b, C) of one sub-model and of a teacher, which are detached."""
        ...


class RowTerm(NamedTuple):
    """One row loss of the objective at this step."""

    loss: RowLoss
    weight: float
    rows: Tensor  # (B,) factor of each query's loss: 0 leaves it out


class RowReport(NamedTuple):
    """What the largest sub-model makes of each query, and its negatives; detached."""

    loss: Tensor  # (B,) sum of the row losses, before their weights
    rank_first: Tensor  # (B,) bool, no allowed document is more similar than the positive
    considered: Tensor  # (B,) int64 documents that could be negatives
    removed: dict[str, Tensor]  # rule -> (B,) int64 documents it took out


class Step(NamedTuple):
    """One batch to evaluate row losses on."""

    pairing: Pairing
    weights: Mapping[SubModel, float]
    terms: Sequence[RowTerm]
    distill: RowDistill | None
    budget: int | None  # None fits the device

    @property
    def largest(self) -> SubModel:
        """The deepest and, among those, widest sub-model."""
        return max(self.weights)

    def teachers(self, sub: SubModel) -> tuple[SubModel, ...]:
        """Those that teach a sub-model; none without a distillation."""
        which: Teachers = getattr(self.distill, "teachers", "largest")
        return () if self.distill is None else teachers_of(sub, list(self.weights), which)

    @property
    def names(self) -> tuple[BlockName, ...]:
        """Blocks that some loss uses."""
        used = {name for term in self.terms for name in term.loss.blocks} | {"query_docs"}
        return tuple(name for name in ORDER if name in used)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What the losses own and train."""
        owners = [
            cast(nn.Module, part) for part in (*(term.loss for term in self.terms), self.distill) if part
        ]
        found = {id(item): item for owner in owners for item in owner.parameters() if item.requires_grad}
        return list(found.values())

    def chunks(self, device: torch.device, blocks: int = 1) -> Iterator[RowFacts]:
        """Consecutive queries, as many as the budget allows against all documents, in `blocks` at a time."""
        target = self.pairing.target
        count, columns = len(target), len(self.pairing.owner)
        positive = torch.zeros(columns, dtype=torch.bool, device=device)  # (C,)
        positive[target] = True
        size = chunk_rows(device, self.budget, columns, blocks)
        for begin in range(0, count, size):
            end = min(begin + size, count)
            rows, here = torch.arange(begin, end, device=device), torch.arange(begin, end)
            yield RowFacts(rows, target[begin:end], self.pairing.step, self.pairing.owner, positive, here)
