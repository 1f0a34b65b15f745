"""What the losses of a batch keep at a time, measured on random vectors with two sizes of chunks.

Letters: B queries, C documents, M texts, L layers, D width, G width of a guide.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from embedtrain.doctor.built_run import BuiltRun, FirstBatch, paired
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity.row_terms import FEWEST_ROWS, chunk_rows
from embedtrain.types import Embeddings, distinct_layers


class SimilarityMemory(NamedTuple):
    """Bytes at the largest moment of a loss and its gradient."""

    per_similarity: float  # of a query of a chunk and a document
    per_text: float  # of the batch

    def of(self, rows: int, columns: int) -> float:
        """Those of a chunk."""
        return self.per_similarity * rows * columns


def similarity_memory(run: BuiltRun, first: FirstBatch) -> SimilarityMemory:
    """Of the batch's queries in chunks of the fewest rows and of twice as many, or of all that there are."""
    first = first._replace(batch=move_data_to_device(first.batch, run.device))
    count, columns = len(first.batch.links.query), len(first.batch.links.docs)
    few, more = min(FEWEST_ROWS, count), min(2 * FEWEST_ROWS, count)
    less, most = _peak(run, first, few * columns), _peak(run, first, more * columns)
    texts = len(first.batch.links.content_ids)
    if few == more:
        return SimilarityMemory(less / (few * columns), less / texts)
    slope = max(most - less, 0) / ((more - few) * columns)
    return SimilarityMemory(slope, max(less - slope * few * columns, 0) / texts)


def chunk_of(run: BuiltRun, first: FirstBatch, columns: int) -> int:
    """Queries of a chunk against `columns` documents, where the whole batch is contrasted."""
    rows = chunk_rows(run.device, run.loss.objective.budget, columns, len(first.chosen))
    return min(rows, len(first.whole.links.query))


def _peak(run: BuiltRun, first: FirstBatch, similarities: int) -> int:
    """Bytes of a loss of random vectors and its gradient, in chunks of `similarities` a block."""
    links, draw = first.batch.links, torch.Generator().manual_seed(0)
    layers, count = distinct_layers(first.chosen), len(links.content_ids)
    guide = run.loss.guide
    vectors = None if guide is None else torch.randn(count, guide.width, generator=draw).to(run.device)
    values = torch.randn(len(layers), count, run.encoder.width, generator=draw).to(run.device)
    texts = Embeddings(values.requires_grad_(), layers)
    objective: Objective = copy.copy(run.loss.objective)
    objective.budget = similarities * (1 if run.device.type == "cpu" else len(first.chosen))
    pairing = paired(run, first, vectors)
    with torch.enable_grad(), LargestMoment() as seen:
        total = objective(texts.rows(links.query), texts.rows(links.docs), pairing, first.chosen).total
        torch.autograd.grad(total, values, allow_unused=True)
    peak: int = seen.peak
    return peak


class LargestMoment(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made while it is open, each storage once, as long as it lives.

    Attributes:
        live: bytes that are there now.
        peak: the most that were there at a time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operation and take note of what it gives."""
        known = {_place(item) for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)}
        made = func(*args, **(kwargs or {}))
        for item in tree_leaves(made):
            if isinstance(item, Tensor) and _place(item) not in known | self._known:
                self._note(item)
        return made

    def _note(self, made: Tensor) -> None:
        storage, place = made.untyped_storage(), _place(made)
        size = storage.nbytes()
        self._known.add(place)
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone() -> None:
            self._known.discard(place)
            self.live -= size

        weakref.finalize(storage, gone)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
