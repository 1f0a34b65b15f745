"""The run's data for Lightning: one long epoch of steps, each a function of its number.

The whole run is ONE Lightning epoch: Lightning's own epochs would restart the loader and reorder nothing.
Resume is exact because the loader starts at the trainer's step; its length stays that of the whole run, since
Lightning adds the batches already fetched itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl

from embedtrain.data.collate import offered
from embedtrain.data.loader import StepDataset, StepLoader
from embedtrain.data.sampler import EvenBatches, GlobalBatches, slice_for_rank
from embedtrain.data.sources import Example, check_all_scored_or_none, read_examples, task_name
from embedtrain.data.splitting import split_examples
from embedtrain.rows import nearest
from embedtrain.types import InputError, Tokenize

Source = str | Mapping[str, Any]
SOURCE_KEYS = ("source", "split", "columns", "task", "prompts")


class DataModule(pl.LightningDataModule):
    """Training and validation batches of one dataset, or of several joined end to end.

    Args:
        train: a path or hub name, or a list of them; each may be a mapping with "source" and any of "split",
            "columns", "task", "prompts" (see `read_examples`).
        validation: the same, or None.
        validation_fraction: share of the training rows split off for validation (see `split_examples`).
        validation_rows: the same as a number of rows.
        validation_limit: use only that many validation rows, drawn by the seed.
        batch_size: rows per micro-step over all ranks together.
        epochs: passes over the rows.
        max_steps: optimiser steps; when given it alone decides the length, `epochs` is not looked at.
        max_negatives: most negatives of a row per epoch; all when None.
        columns: our field -> name in the rows, for sources that do not say it themselves.
        num_workers: processes that collate ahead; 0 collates in the training process.
        seed: decides the split and the order of every epoch.
        tokenize: texts to `Tokens`; must be picklable when num_workers > 0.
        guide_tokenize: the same for a guide model, whose tokens training batches then hold too.

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
        epochs: int = 1,
        max_steps: int | None = None,
        max_negatives: int | None = None,
        columns: Mapping[str, str] | None = None,
        num_workers: int = 0,
        seed: int,
        tokenize: Tokenize,
        guide_tokenize: Tokenize | None = None,
    ) -> None:
        super().__init__()
        _check(epochs=epochs, batch_size=batch_size, max_steps=max_steps, validation_limit=validation_limit)
        wishes = (validation is not None, validation_fraction != 0.0, validation_rows is not None)
        if sum(wishes) > 1:
            raise InputError(
                "give one of validation, validation_fraction and validation_rows: they each say what to "
                "validate on."
            )
        self._sources = train
        self._validation_sources = validation
        self._split = {"fraction": validation_fraction or None, "rows": validation_rows}
        self._validation_limit = validation_limit
        self._batch_size = batch_size
        self._epochs = epochs
        self._max_steps = max_steps
        self._max_negatives = max_negatives
        self._columns = columns
        self._num_workers = num_workers
        self._seed = seed
        self._tokenize, self._guide_tokenize = tokenize, guide_tokenize
        self._train: list[Example] = []
        self._validation: list[Example] = []
        self._batches: GlobalBatches | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split the rows and plan the first epoch; a second call does nothing."""
        if self._batches is not None:
            return
        train = read_sources(self._sources, self._columns)
        if self._validation_sources is not None:
            self._validation = read_sources(self._validation_sources, self._columns)
        elif any(self._split.values()):
            train, self._validation = split_examples(train, **self._split, seed=self._seed)  # type: ignore[arg-type]
        self._validation = _sample(self._validation, self._validation_limit, self._seed)
        rank, world = self._place()
        if 0 < len(self._validation) < world:
            raise InputError(
                f"validation has {len(self._validation)} rows for {world} ranks: give more rows."
            )
        slice_for_rank(range(self._batch_size), rank, world)
        self._batches = GlobalBatches(train, batch_size=self._batch_size, seed=self._seed)
        self._train = train

    @property
    def total_steps(self) -> int:
        """Micro-steps of the whole run, known after `setup`: a multiple of the accumulated batches.

        Raises:
            InputError: when the rows do not make one optimiser step.
        """
        accumulate = self._accumulate()
        if self._max_steps is not None:
            return self._max_steps * accumulate
        steps = self._epochs * self._planned().batches_per_epoch
        if steps < accumulate:
            raise InputError(
                f"{self._epochs} epochs are {steps} batches of {self._batch_size} rows, fewer than the "
                f"{accumulate} batches of one optimiser step. Lower data.batch_size or trainer.accumulate."
            )
        return steps - steps % accumulate

    @property
    def batches_per_epoch(self) -> int:
        """Micro-steps of one pass over the rows, known after `setup`."""
        return self._planned().batches_per_epoch

    @property
    def has_validation(self) -> bool:
        """Whether there are validation rows, known after `setup`."""
        return bool(self._validation)

    @property
    def tasks(self) -> dict[str, bool]:
        """The data sets that the training rows belong to, and whether those have scores. After `setup`."""
        return dict(sorted({example.task: example.score is not None for example in self._train}.items()))

    @property
    def offers(self) -> frozenset[str]:
        """What some training row has beyond a positive: "scores", "teacher", "negatives". After `setup`."""
        return offered(self._train)

    def examples_at(self, rows: Sequence[int]) -> list[Example]:
        """The training rows of `Links.rows`, for messages that name them."""
        return [self._train[row] for row in rows]

    def train_dataloader(self) -> StepLoader:
        """Steps from the trainer's own on, to the end of the run."""
        rank, world = self._place()
        dataset = StepDataset(
            self._train,
            self._planned(),
            self._tokenize,
            cut=slice_for_rank,
            rank=rank,
            world=world,
            max_negatives=self._max_negatives,
            guide_tokenize=self._guide_tokenize,
        )
        return StepLoader(dataset, self.total_steps, first=self._first_step, num_workers=self._num_workers)

    def val_dataloader(self) -> StepLoader | list[StepLoader]:
        """All validation rows in order, each on one rank; an empty list when there are none."""
        if not self._validation:
            return []
        rank, world = self._place()
        batches = EvenBatches(len(self._validation), batch_size=self._batch_size)
        dataset = StepDataset(
            self._validation, batches, self._tokenize, cut=part_for_rank, rank=rank, world=world
        )
        return StepLoader(dataset, batches.batches_per_epoch, first=_zero, num_workers=self._num_workers)

    def _planned(self) -> GlobalBatches:
        if self._batches is None:
            self.setup()
        assert self._batches is not None
        return self._batches

    def _place(self) -> tuple[int, int]:
        """(rank, number of ranks)."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _accumulate(self) -> int:
        return self.trainer.accumulate_grad_batches if self.trainer else 1

    def _first_step(self) -> int:
        return self.trainer.global_step * self._accumulate() if self.trainer else 0


def read_sources(
    sources: Source | Sequence[Source], columns: Mapping[str, str] | None = None
) -> list[Example]:
    """The examples of one source or of several, one after the other; of each task, all scored or none.

    Raises:
        InputError: as `read_examples`; for an unknown key of a source; when nothing is given.
    """
    listed = [sources] if isinstance(sources, str | Mapping) else list(sources)
    if not listed:
        raise InputError("train: the list of datasets is empty. Give a path or a hub name.")
    examples = [example for source in listed for example in _read(source, columns)]
    _check_names(listed)
    check_all_scored_or_none(examples)
    return examples


def part_for_rank(rows: Sequence[int], rank: int, world: int) -> Sequence[int]:
    """The rank's consecutive part of the rows; parts differ by at most one row and none is lost."""
    return rows[len(rows) * rank // world : len(rows) * (rank + 1) // world]


def _read(source: Source, columns: Mapping[str, str] | None) -> list[Example]:
    if not isinstance(source, Mapping):
        return read_examples(source, columns=columns)
    for key in source:
        if key not in SOURCE_KEYS:
            raise InputError(
                f"a dataset has no setting {key!r}, only {', '.join(SOURCE_KEYS)}."
                f"{nearest(key, list(SOURCE_KEYS))}"
            )
    if "source" not in source:
        raise InputError(f"a dataset needs a source, a path or a hub name; got {dict(source)}.")
    return read_examples(**{"columns": columns, **source})


def _check_names(sources: Sequence[Source]) -> None:
    """Refuse two sources that would be one task by accident."""
    by_name: dict[str, str] = {}
    for source in sources:
        place = source["source"] if isinstance(source, Mapping) else source
        if isinstance(source, Mapping) and source.get("task") is not None:
            continue
        other = by_name.setdefault(task_name(place), str(place))
        if other != str(place):
            raise InputError(
                f"{other} and {place} would both be the task {task_name(place)!r}: give each its own, "
                "{source: ..., task: NAME}."
            )


def _sample(examples: list[Example], limit: int | None, seed: int) -> list[Example]:
    """At most `limit` examples, drawn by the seed, in their order."""
    if limit is None or len(examples) <= limit:
        return examples
    drawn = np.random.default_rng(seed).permutation(len(examples))[:limit]
    return [examples[row] for row in sorted(drawn.tolist())]


def _check(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} must be 1 or more, got {count}.")


def _zero() -> int:
    return 0
