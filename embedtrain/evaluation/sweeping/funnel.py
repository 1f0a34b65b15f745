"""Funnel retrieval: shortlist with a small cut, order the shortlist again with larger ones.

Adaptive and funnel retrieval are of Matryoshka representation learning (Kusupati et al. 2022, 2205.13147,
sections 4.3 and 4.3.2). Here a stage is any sub-model, so the funnel may also climb through the layers.

Letters: Q queries, N documents, S stages, k documents kept before a stage, d its dims.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from embedtrain.types import DTYPES, Cell, InputError, SubModel


class Funnel(NamedTuple):
    """A cascade of sub-models: all documents by the first, the best `keep[j]` of them by `cells[j + 1]`."""

    cells: tuple[SubModel, ...]  # S
    keep: tuple[int, ...]  # S - 1, never growing

    def __str__(self) -> str:
        """The name that scores and result folders bear: funnel(L2_D32>200>L6_D384)."""
        stages = [str(self.cells[0])]
        for count, cell in zip(self.keep, self.cells[1:], strict=True):
            stages += [str(count), str(cell)]
        return f"funnel({'>'.join(stages)})"

    @property
    def last(self) -> SubModel:
        """The sub-model whose order is the result's."""
        return self.cells[-1]

    @property
    def layer(self) -> int:
        """The last sub-model's layer, which the funnel's scores bear."""
        return self.last.layer

    @property
    def dim(self) -> int:
        """The last sub-model's dim, which the funnel's scores bear."""
        return self.last.dim

    @property
    def dtype(self) -> str:
        """What distinguishes a funnel's scores from those of its last sub-model: its name."""
        return str(self)

    def cost(self, documents: int) -> int:
        """Multiply-adds of one query's search: N d_0 + sum of k_j d_j. Encoding the query is not in it."""
        total = documents * self.cells[0].dim
        for count, cell in zip(self.keep, self.cells[1:], strict=True):
            total += min(count, documents) * cell.dim
        return total

    def share(self, documents: int) -> float:
        """That cost as a share of searching all documents with the last sub-model."""
        return self.cost(documents) / (documents * self.last.dim)


Measured = Cell | Funnel  # what a sweep scores


def sub_models_of(measured: Measured) -> tuple[SubModel, ...]:
    """The sub-models whose vectors it takes."""
    return measured.cells if isinstance(measured, Funnel) else (measured.sub,)


def measured_as(layer: int, dim: int, dtype: str) -> Measured | None:
    """What has scores of this layer, dim and dtype; None for a dtype that does not exist."""
    known = [name for name in DTYPES if name == dtype]
    return Cell(layer, dim, known[0]) if known else named_funnel(dtype)


def applies(measured: Measured, task_type: str) -> bool:
    """Whether a task of this type is scored with it: a funnel searches, and does nothing else."""
    return isinstance(measured, Cell) or task_type == "Retrieval"


def funnel_of(row: Mapping[str, Any], place: str = "funnels") -> Funnel:
    """A funnel from `{cells: [[2, 32], [6, 384]], keep: [200]}`.

    Raises:
        InputError: other keys, fewer than two cells, another number of `keep` than stages after the first,
            or counts that are not positive and falling.
    """
    if set(row) != {"cells", "keep"}:
        raise InputError(
            f"{place}: a funnel is {{cells: [[layer, dim], ...], keep: [k, ...]}}, got {dict(row)}"
        )
    cells, keep = row["cells"], row["keep"]
    if any(len(cell) != 2 for cell in cells) or len(cells) < 2:
        raise InputError(f"{place}: cells must be two or more of [layer, dim], got {cells}")
    if len(keep) != len(cells) - 1:
        raise InputError(
            f"{place}: {len(cells)} cells need {len(cells) - 1} counts in keep, one before each cell after "
            f"the first, got {keep}"
        )
    if any(count < 1 for count in keep) or list(keep) != sorted(keep, reverse=True):
        raise InputError(f"{place}: keep must be positive and may not grow from stage to stage, got {keep}")
    return Funnel(tuple(SubModel(*cell) for cell in cells), tuple(keep))


def named_funnel(name: str) -> Funnel | None:
    """The funnel of a name as scores bear it, None for any other dtype."""
    found = re.fullmatch(r"funnel\((.+)\)", name)
    stages = found[1].split(">") if found else []
    cells = [re.fullmatch(r"L(\d+)_D(\d+)", stage) for stage in stages[::2]]
    if len(cells) < 2 or not all(cells) or not all(count.isdigit() for count in stages[1::2]):
        return None
    sub_models = tuple(SubModel(int(cell[1]), int(cell[2])) for cell in cells if cell)
    return Funnel(sub_models, tuple(int(count) for count in stages[1::2]))


def shortlist(query: Tensor, docs: Tensor, keep: int) -> Tensor:
    """The nearest documents of each query, best first: unit rows (Q, d), (N, d) to (Q, min(keep, N))."""
    found: Tensor = (query @ docs.T).topk(min(keep, len(docs)), dim=1).indices
    return found


def rerank(neighbours: Tensor, keep: int, query: Tensor, docs: Tensor) -> tuple[Tensor, Tensor]:
    """The first `keep` neighbours ordered again by another sub-model, and their cosines: two of (Q, k).

    The cut comes before the ordering. Neighbours that tie keep their order. Nothing is written into
    `neighbours`: the notebook this is checked against did, and so spoilt the next cascade over them.

    Args:
        neighbours: (Q, K) document numbers, best first.
        keep: how many of them are looked at.
        query: (Q, d) unit rows.
        docs: (N, d) unit rows.
    """
    kept = neighbours[:, :keep]
    similarity = torch.einsum("qd,qkd->qk", query, docs[kept])  # (Q, k)
    order = similarity.argsort(dim=1, descending=True, stable=True)
    return kept.gather(1, order), similarity.gather(1, order)


def cascade(
    neighbours: Tensor, keep: Sequence[int], stages: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Neighbours (Q, K) through every stage's (query, docs): documents (Q, k) best first, and cosines."""
    found, similarity = neighbours, torch.empty(0)
    for count, (query, docs) in zip(keep, stages, strict=True):
        found, similarity = rerank(found, count, query, docs)
    return found, similarity
