"""The run's data for Lightning: one long epoch of steps, each a function of its number.

The whole run is ONE Lightning epoch: Lightning's own epochs would restart the loader and reorder nothing.
Resume is exact because the loader starts at the trainer's step; its length stays that of the whole run, since
Lightning adds the batches already fetched itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from embedtrain.data.entries import datasets_of, entries_of, read_entry, read_sources, sample
from embedtrain.data.loader import Collate, Cut, Revise, StepDataset, StepLoader
from embedtrain.data.order.draw import Draw
from embedtrain.data.order.mixture import Dataset, Mix
from embedtrain.data.order.run_plan import Composition, Part, RunPlan
from embedtrain.data.order.sampler import EvenBatches, part_for_rank, slice_for_rank
from embedtrain.data.read.bad_rows import BadRows
from embedtrain.data.read.fields import Check, text
from embedtrain.data.read.sources import Example, offered
from embedtrain.data.splitting import split_off
from embedtrain.data.stores.fingerprint import fingerprint
from embedtrain.data.stores.memory import some_rows
from embedtrain.settings.commands import DataSettings
from embedtrain.types import InputError

READ = 1_024  # rows taken together where all are read


class DataModule(pl.LightningDataModule):
    """Training and validation batches of one dataset, or of a mixture.

    Args:
        settings: which rows, and how batches are made of them.
        max_epochs: passes over the rows.
        max_steps: optimiser steps; when given it alone decides the length, `max_epochs` only the proportions.
        seed: decides the split, the order of every epoch and the turns of the datasets.
        collate: rows of a training step to its batch; must be picklable when num_workers > 0.
        validation_collate: the same for validation; `collate` when None.
        content: what rows hold of another modality (see `read_examples`); texts when not given.
        folder: of the run; bad rows are reported in its `bad_rows`. Needed unless on_bad_row is "error".
        stage: folder in `bad_rows` for those of a stage of the run; none when "".
        revise: may put other examples in the place of a step's (see `StepDataset`).

    Raises:
        InputError: at `setup`, with the place of whatever cannot be trained on.
    """

    def __init__(
        self,
        settings: DataSettings,
        *,
        max_epochs: int = 1,
        max_steps: int | None = None,
        seed: int,
        collate: Collate,
        validation_collate: Collate | None = None,
        content: Check = text,
        folder: str | Path | None = None,
        stage: str = "",
        revise: Revise | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        draw = Draw(settings.max_negatives, settings.draw_negatives, seed).checked("data: ")
        self._entries = entries_of(settings.train, settings.columns, draw)
        self._bad_rows = BadRows(
            settings.on_bad_row,
            None if folder is None else Path(folder) / "bad_rows" / stage,
            setting="data.on_bad_row",
        )
        beside = None if folder is None else Path(folder).parent / ".rows"
        self._cache = beside if settings.cache is None else Path(settings.cache)
        self._max_steps, self._seed = max_steps, seed
        self._mix = Mix(settings.sampling, settings.alpha, max_epochs)
        self._composition = Composition(settings.batches, settings.batch_size, settings.group_by_length)
        self._collate, self._validation_collate = collate, validation_collate or collate
        self._content = content
        self.revise = revise
        self._datasets: list[Dataset] = []
        self._validation: Sequence[Example] = []
        self._planned: RunPlan | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split the rows and plan the run; a second call does nothing."""
        if self._planned is not None:
            return
        bad_rows, content = self._bad_rows, self._content
        parts = [(entry, read_entry(entry, bad_rows, self._cache, content)) for entry in self._entries]
        chosen = self.settings
        fraction, rows = chosen.validation_fraction or None, chosen.validation_rows
        if chosen.validation is not None:
            self._validation = read_sources(chosen.validation, chosen.columns, bad_rows, content)
        elif (fraction, rows) != (None, None):
            parts, self._validation = split_off(parts, fraction=fraction, rows=rows, seed=self._seed)
        self._validation = sample(self._validation, chosen.validation_limit, self._seed)
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
    def optimiser_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.total_steps // self._accumulate()

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
    def validation_offers(self) -> frozenset[str]:
        """The same of the validation rows."""
        return offered(self._validation)

    @property
    def in_batch(self) -> dict[str, bool]:
        """The datasets that say whether their queries meet what other rows brought. After `setup`."""
        given = {item.store.task: item.use.in_batch for item in self._datasets}
        return {task: value for task, value in given.items() if value is not None}

    def fingerprints(self) -> dict[str, str]:
        """Hashes of the rows by what they are: "training rows of TASK", "validation rows". After `setup`."""
        found = {f"training rows of {item.store.task}": item.store.fingerprint() for item in self._datasets}
        return found | ({"validation rows": fingerprint(self._validation)} if self._validation else {})

    def examples_at(self, rows: Sequence[int]) -> list[Example]:
        """The training rows of `Links.rows`, for messages that name them."""
        offsets = np.array(self._offsets())
        examples: list[Example] = []
        for row in rows:
            number = int(np.searchsorted(offsets, row, side="right")) - 1
            own = int(row - offsets[number])
            examples += self._datasets[number].store.take([own])
        return examples

    def training_rows(self) -> Iterator[tuple[int, Example]]:
        """Every training row and its number, as `Links.rows` counts. After `setup`."""
        for item, offset in zip(self._datasets, self._offsets(), strict=True):
            for start in range(0, len(item.store), READ):
                numbers = range(start, min(start + READ, len(item.store)))
                yield from enumerate(item.store.take(numbers), offset + start)

    @property
    def ahead(self) -> int:
        """How many batches may be made before their step: those of the workers, and Lightning's own."""
        return 2 * self.settings.num_workers + 2

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ANN401
        """A batch that knows what of it stays on the host moves itself."""
        if hasattr(batch, "to_device"):
            return batch.to_device(device)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def train_dataloader(self) -> StepLoader:
        """Steps from the trainer's own on, to the end of the run."""
        steps = self.steps(slice_for_rank, *self._place())
        return StepLoader(steps, self.total_steps, first=self._first_step, **self._loading())

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
        batches = EvenBatches(self._validation, batch_size=self.settings.batch_size)
        dataset = StepDataset(batches, self._validation_collate, cut=part_for_rank, rank=rank, world=world)
        return StepLoader(dataset, batches.batches, first=_zero, **self._loading())

    def _loading(self) -> dict[str, Any]:
        """Workers, and whether batches go to a GPU: pinned memory opens a context on one."""
        pinned = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {"num_workers": self.settings.num_workers, "pin_memory": pinned}

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


def _zero() -> int:
    return 0
