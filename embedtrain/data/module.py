"""The run's data for Lightning: one long epoch of steps, each a function of its number.

The whole run is ONE Lightning epoch: Lightning's own epochs would restart the loader and reorder nothing.
Resume is exact because the loader starts at the trainer's step; its length stays that of the whole run, since
Lightning adds the batches already fetched itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from embedtrain.data.entries import Source, datasets_of, entries_of, read_entry, read_sources, sample
from embedtrain.data.loader import Collate, Cut, Revise, StepDataset, StepLoader
from embedtrain.data.order.draw import Draw, How
from embedtrain.data.order.mixture import Dataset, Mix, Sampling
from embedtrain.data.order.run_plan import BatchesOf, Composition, Part, RunPlan
from embedtrain.data.order.sampler import EvenBatches, part_for_rank, slice_for_rank
from embedtrain.data.read.bad_rows import BadRows, Policy
from embedtrain.data.read.sources import Example, offered
from embedtrain.data.splitting import split_off
from embedtrain.data.stores.memory import some_rows
from embedtrain.types import InputError

READ = 1_024  # rows taken together where all are read


class DataModule(pl.LightningDataModule):
    """Training and validation batches of one dataset, or of a mixture.

    Args:
        train: a path or hub name, or a list of them; each may be a mapping with "source" and any of the
            settings of a dataset (see `entries.KEYS` and docs/data.md).
        validation: the same without those settings, or None.
        validation_fraction: share of the training rows split off for validation (see `held_out`).
        validation_rows: the same as a number of rows.
        validation_limit: use only that many validation rows, drawn by the seed.
        batch_size: rows per micro-step over all ranks together.
        batches: "one_task" makes every batch of one dataset, "mixed" draws each from all of them.
        sampling: what decides the share of a dataset: its rows and epochs ("proportional"), its weight
            ("weights"), or its size to the power alpha ("temperature").
        alpha: of "temperature", 0 (all alike) to 1 (proportional).
        group_by_length: rows of similar length share batches.
        max_negatives: most negatives of a row per epoch; all when None.
        draw_negatives: which, where a row has more: "rotate", "first", "sample", or "all" of them.
        columns: our field -> name in the rows, for sources that do not say it themselves.
        on_bad_row: what becomes of a row that cannot be used: "error" stops at it, "skip" leaves it out and
            reports it, "quarantine" also keeps its text to be repaired (see `BadRows`).
        cache: folder of the rows of streamed datasets; `.rows` beside the run when None.
        num_workers: processes that make batches ahead; 0 makes them in the training process.
        max_epochs: passes over the rows.
        max_steps: optimiser steps; when given it alone decides the length, `max_epochs` only the proportions.
        seed: decides the split, the order of every epoch and the turns of the datasets.
        collate: rows of a training step to its batch; must be picklable when num_workers > 0.
        validation_collate: the same for validation; `collate` when None.
        folder: of the run; bad rows are reported in its `bad_rows`. Needed unless on_bad_row is "error".
        revise: may put other examples in the place of a step's (see `StepDataset`).

    Raises:
        InputError: at `setup`, with the place of whatever cannot be trained on.
    """

    def __init__(
        self,
        *,
        train: Source | Sequence[Source],
        validation: Source | Sequence[Source] | None = None,
        validation_fraction: float = 0.0,
        validation_rows: int | None = None,
        validation_limit: int | None = None,
        batch_size: int = 64,
        batches: BatchesOf = "one_task",
        sampling: Sampling = "proportional",
        alpha: float = 0.5,
        group_by_length: bool = False,
        max_negatives: int | None = None,
        draw_negatives: How = "rotate",
        columns: Mapping[str, str] | None = None,
        on_bad_row: Policy = "error",
        cache: str | Path | None = None,
        num_workers: int = 0,
        max_epochs: int = 1,
        max_steps: int | None = None,
        seed: int,
        collate: Collate,
        validation_collate: Collate | None = None,
        folder: str | Path | None = None,
        revise: Revise | None = None,
    ) -> None:
        super().__init__()
        _check(
            max_epochs=max_epochs,
            batch_size=batch_size,
            max_steps=max_steps,
            validation_limit=validation_limit,
        )
        wishes = (validation is not None, validation_fraction != 0.0, validation_rows is not None)
        if sum(wishes) > 1:
            raise InputError(
                "give one of validation, validation_fraction and validation_rows: they each say what to "
                "validate on."
            )
        draw = Draw(max_negatives, draw_negatives, seed).checked("data: ")
        if draw.how == "all" and draw.most is not None:
            raise InputError("data.draw_negatives=all contradicts data.max_negatives: say one of the two.")
        self._entries = entries_of(train, columns, draw)
        self._bad_rows = BadRows(on_bad_row, None if folder is None else Path(folder) / "bad_rows")
        beside = None if folder is None else Path(folder).parent / ".rows"
        self._cache = beside if cache is None else Path(cache)
        self._validation_sources, self._columns = validation, columns
        self._split = (validation_fraction or None, validation_rows)
        self._validation_limit = validation_limit
        self._batch_size, self._max_steps = batch_size, max_steps
        self._mix = Mix(sampling, alpha, max_epochs).checked()
        self._composition = Composition(batches, batch_size, group_by_length).checked()
        self._num_workers, self._seed = num_workers, seed
        self._collate, self._validation_collate = collate, validation_collate or collate
        self.revise = revise
        self._datasets: list[Dataset] = []
        self._validation: Sequence[Example] = []
        self._planned: RunPlan | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split the rows and plan the run; a second call does nothing."""
        if self._planned is not None:
            return
        parts = [(entry, read_entry(entry, self._bad_rows, self._cache)) for entry in self._entries]
        if self._validation_sources is not None:
            self._validation = read_sources(self._validation_sources, self._columns, self._bad_rows)
        elif any(self._split):
            fraction, rows = self._split
            parts, self._validation = split_off(parts, fraction=fraction, rows=rows, seed=self._seed)
        self._validation = sample(self._validation, self._validation_limit, self._seed)
        rank, world = self._place()
        if 0 < len(self._validation) < world:
            raise InputError(
                f"validation has {len(self._validation)} rows for {world} ranks: give more rows."
            )
        self._datasets = datasets_of(parts, self._seed)
        planned = RunPlan(self._datasets, self._mix, self._composition, seed=self._seed)
        for size in planned.sizes:
            slice_for_rank(range(size), rank, world)
        self._planned = planned
        self._bad_rows.summary()

    @property
    def total_steps(self) -> int:
        """Micro-steps of the whole run, known after `setup`: a multiple of the accumulated batches.

        Raises:
            InputError: when the rows do not make one optimiser step.
        """
        accumulate = self._accumulate()
        if self._max_steps is not None:
            return self._max_steps * accumulate
        steps = self._plan().length
        if steps < accumulate:
            raise InputError(
                f"{self._mix.epochs} epochs are {steps} batches, fewer than the {accumulate} batches of one "
                "optimiser step. Lower data.batch_size or trainer.accumulate_grad_batches."
            )
        return steps - steps % accumulate

    @property
    def batches_per_epoch(self) -> int:
        """Micro-steps of one pass over the rows of all datasets, known after `setup`."""
        return self._plan().batches_per_epoch

    @property
    def datasets(self) -> Sequence[Dataset]:
        """The training rows by dataset, as `Drawn.dataset` numbers them. After `setup`."""
        return tuple(self._datasets)

    @property
    def parts(self) -> list[Part]:
        """What each of them gives to the run. After `setup`."""
        return self._plan().parts(self.total_steps)

    @property
    def has_validation(self) -> bool:
        """Whether there are validation rows, known after `setup`."""
        return bool(self._validation)

    @property
    def tasks(self) -> dict[str, bool]:
        """The datasets of the training rows by name, and whether their rows have scores. After `setup`."""
        named = sorted(self._datasets, key=lambda item: item.store.task)
        return {item.store.task: some_rows(item.store)[0].score is not None for item in named}

    @property
    def offers(self) -> frozenset[str]:
        """What some training row has beyond a pair, as `offered` says. After `setup`.

        Of a stream only some rows are looked at.
        """
        return offered(example for item in self._datasets for example in some_rows(item.store))

    @property
    def in_batch(self) -> dict[str, bool]:
        """The datasets that say whether their queries meet what other rows brought. After `setup`."""
        said = {item.store.task: item.use.in_batch for item in self._datasets}
        return {task: wish for task, wish in said.items() if wish is not None}

    @property
    def own_negatives_only(self) -> frozenset[str]:
        """The datasets whose queries are contrasted with their own documents alone."""
        return frozenset(task for task, shared in self.in_batch.items() if not shared)

    def examples_at(self, rows: Sequence[int]) -> list[Example]:
        """The training rows of `Links.rows`, for messages that name them."""
        offsets = np.array(self._offsets())
        found: list[Example] = []
        for row in rows:
            number = int(np.searchsorted(offsets, row, side="right")) - 1
            own = int(row - offsets[number])
            found += self._datasets[number].store.take([own])
        return found

    def training_rows(self) -> Iterator[tuple[int, Example]]:
        """Every training row and its number, as `Links.rows` counts. After `setup`."""
        for item, offset in zip(self._datasets, self._offsets(), strict=True):
            for start in range(0, len(item.store), READ):
                numbers = range(start, min(start + READ, len(item.store)))
                yield from enumerate(item.store.take(numbers), offset + start)

    @property
    def ahead(self) -> int:
        """How many batches may be made before their step: those of the workers, and Lightning's own."""
        return 2 * self._num_workers + 2

    def train_dataloader(self) -> StepLoader:
        """Steps from the trainer's own on, to the end of the run."""
        steps = self.steps(slice_for_rank, *self._place())
        return StepLoader(steps, self.total_steps, first=self._first_step, num_workers=self._num_workers)

    def steps(self, cut: Cut = slice_for_rank, rank: int = 0, world: int = 1) -> StepDataset:
        """Batches by their step: a rank's part of each, by default all of it; `cut` as of `StepDataset`."""
        return StepDataset(
            self._plan().batches(self.total_steps),
            self._collate,
            cut=cut,
            rank=rank,
            world=world,
            offsets=self._offsets(),
            draws=[item.use.draw for item in self._datasets],
            revise=self.revise,
        )

    def val_dataloader(self) -> StepLoader | list[StepLoader]:
        """All validation rows in order, each on one rank; an empty list when there are none."""
        if not self._validation:
            return []
        rank, world = self._place()
        batches = EvenBatches(self._validation, batch_size=self._batch_size)
        dataset = StepDataset(batches, self._validation_collate, cut=part_for_rank, rank=rank, world=world)
        return StepLoader(dataset, batches.batches, first=_zero, num_workers=self._num_workers)

    def _offsets(self) -> list[int]:
        """The number of the first row of each dataset in the whole data."""
        sizes = [len(item.store) for item in self._datasets]
        return [sum(sizes[:number]) for number in range(len(sizes))]

    def _plan(self) -> RunPlan:
        if self._planned is None:
            self.setup()
        assert self._planned is not None
        return self._planned

    def _place(self) -> tuple[int, int]:
        """(rank, number of ranks)."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _accumulate(self) -> int:
        return self.trainer.accumulate_grad_batches if self.trainer else 1

    def _first_step(self) -> int:
        return self.trainer.global_step * self._accumulate() if self.trainer else 0


def _check(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} must be 1 or more, got {count}.")


def _zero() -> int:
    return 0
