"""The batches of a whole run, from its datasets and how they share it; what cannot be trained on, refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

from embedtrain.data.order.mixture import Dataset, Mix, apportion
from embedtrain.data.order.sampler import Batches, OneTask
from embedtrain.data.order.windows import Line, OneDataset, Several, Windows
from embedtrain.data.read.sources import Example
from embedtrain.data.stores.memory import MemoryRows
from embedtrain.types import InputError

BatchesOf = Literal["one_task", "mixed"]

logger = logging.getLogger(__name__)


class Composition(NamedTuple):
    """What a batch is made of."""

    batches: BatchesOf = "one_task"
    batch_size: int = 64
    group_by_length: bool = False


class Part(NamedTuple):
    """What one dataset gives to a run."""

    task: str
    rows: int
    batch_size: int  # of a batch of its own, or of the mixed ones
    batches: int | None  # of its own; None where they are mixed
    seen: int  # rows in all batches of the run, with repetitions
    left_out: int  # rows that an epoch of it has no batch for

    @property
    def epochs(self) -> float:
        """How often the run goes through its rows."""
        return self.seen / self.rows


class RunPlan:
    """Datasets to the global batches of a run of any length.

    Args:
        datasets: one or more.
        mix: how they share the run.
        composition: what a batch is made of.
        seed: 0 or more.

    Raises:
        InputError: for a dataset that fills no batch, has nothing to contrast, or a setting that is ignored.
    """

    def __init__(self, datasets: Sequence[Dataset], mix: Mix, composition: Composition, *, seed: int) -> None:
        self._datasets, self._mix, self._seed = datasets, mix, seed
        self._mixed = composition.batches == "mixed"
        self._batch_size, self._group_by_length = composition.batch_size, composition.group_by_length
        self._alone = frozenset(dataset.store.task for dataset in datasets if dataset.use.in_batch is False)
        mix.check(datasets)
        self.sizes = [self._size(dataset) for dataset in datasets]
        for dataset, size in zip(datasets, self.sizes, strict=True):
            self._check(dataset, size)
        self._windows = [
            self._cut(OneDataset(number, dataset.store, seed), size)
            for number, (dataset, size) in enumerate(zip(datasets, self.sizes, strict=True))
        ]

    @property
    def batches_per_epoch(self) -> int:
        """Full batches of one pass over all datasets."""
        rows = [len(dataset.store) for dataset in self._datasets]
        return sum(rows) // self._batch_size if self._mixed else sum(self._epoch_sizes())

    @property
    def length(self) -> int:
        """Batches of the run by the epochs of its datasets."""
        whole = self._mix.length(self._datasets, self._epoch_sizes())
        return whole // self._batch_size if self._mixed else whole

    def batches(self, total: int) -> Batches:
        """The global batches of a run of that many; each dataset has its share of them."""
        counts = self._counts(total)
        self._say(total)
        if not self._mixed:
            return OneTask(self._windows, counts, self._seed)
        stores = [dataset.store for dataset in self._datasets]
        return self._cut(Several(stores, counts, self._seed), self._batch_size)

    def parts(self, total: int) -> list[Part]:
        """What each dataset gives to a run of that many batches."""
        parts = []
        for dataset, count, size in zip(self._datasets, self._counts(total), self.sizes, strict=True):
            rows = len(dataset.store)
            own, left = (None, 0) if self._mixed else (count, rows % size)
            seen = count if self._mixed else count * size
            parts.append(Part(dataset.store.task, rows, size, own, seen, left))
        return parts

    def _cut(self, line: Line, size: int) -> Windows:
        return Windows(
            line, size=size, seed=self._seed, alone=self._alone, group_by_length=self._group_by_length
        )

    def _counts(self, total: int) -> list[int]:
        """Rows of each dataset in a run of that many batches where they are mixed, else its batches."""
        shares = self._mix.shares(self._datasets, self._epoch_sizes())
        return apportion(total * self._batch_size if self._mixed else total, shares)

    def _epoch_sizes(self) -> list[int]:
        """What shares are counted in: rows of each dataset for mixed batches, else its full batches."""
        if self._mixed:
            return [len(dataset.store) for dataset in self._datasets]
        return [windows.batches_per_epoch for windows in self._windows]

    def _size(self, dataset: Dataset) -> int:
        own = dataset.use.batch_size
        if own is not None and self._mixed:
            raise InputError(
                f"dataset {dataset.store.task!r} says its batch_size, and data.batches=mixed draws every "
                "batch from all datasets: leave it out, or choose data.batches=one_task."
            )
        return self._batch_size if own is None or self._mixed else own

    def _check(self, dataset: Dataset, size: int) -> None:
        store, rows = dataset.store, len(dataset.store)
        if size < 1:
            raise InputError(f"batch_size must be 1 or more, got {size}.")
        if size > rows and not self._mixed:
            own = " here or in its entry of data.train, or choose data.batches=mixed"
            raise InputError(
                f"data.batch_size={size} is more than the {rows} training rows of {store.task!r}. "
                f"Set data.batch_size to {rows} or less{own if len(self._datasets) > 1 else ''}."
            )
        if isinstance(store, MemoryRows):
            alone = store.task in self._alone
            if size == 1 or alone:
                _check_own_negatives(store.examples, dataset, alone)
            else:
                _check_something_differs(store.examples)

    def _say(self, total: int) -> None:
        """Log what each dataset gives to the run."""
        for part in self.parts(total):
            gives = f"{part.seen} rows" if self._mixed else f"{part.batches} batches of {part.batch_size}"
            logger.info("%s: %d rows, %s, %.2f epochs", part.task, part.rows, gives, part.epochs)
            if not part.seen:
                logger.warning("%s trains at no step: its share of the run is too small", part.task)
            elif self._mixed and part.seen < 2 * total and self._batch_size > 1:
                logger.warning("%s has %.1f rows in a batch: its queries have hardly another row of their "
                               "task to be contrasted with", part.task, part.seen / total)  # fmt: skip


def _check_own_negatives(examples: Sequence[Example], dataset: Dataset, alone: bool) -> None:
    """Refuse a row that brings no negative where no other row brings any."""
    for example in examples:
        if not example.positives:
            continue  # a text alone, for steps that contrast nothing
        if example.score is None and (not example.negatives or dataset.use.draw.most == 0):
            why = "in_batch=false" if alone else "data.batch_size=1"
            cure = "Leave in_batch out" if alone else "Set data.batch_size to 2 or more"
            raise InputError(
                f"{example.where}: nothing to contrast: {why} brings no other row's positive as a negative "
                f"and this row has no negatives of its own. {cure}, or add negatives."
            )


def _check_something_differs(examples: Sequence[Example]) -> None:
    """Refuse unscored rows of which every one has the same text."""
    first = examples[0]
    if first.score is not None or not first.positives or len(examples) == 1:
        return
    common = dict.fromkeys((first.query, *first.positives, *first.negatives))
    labelled = {first.query, *first.positives}
    for example in examples:
        labelled |= {example.query, *example.positives} & common.keys()
        here = {example.query, *example.positives, *example.negatives}
        common = {text: None for text in common if text in here}
        if not common:
            return
    shared = [text for text in common if text in labelled]
    if shared:
        raise InputError(
            f"all {len(examples)} rows share the text {str(shared[0])[:80]!r}: there is nothing to contrast. "
            "Add rows about something else, or give every row a score."
        )
