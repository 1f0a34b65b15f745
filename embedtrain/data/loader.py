"""Steps to this rank's batches: a dataset indexed by the step, and a loader that can start at any of them."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from embedtrain.data.order.draw import ALL, Draw, Pick, pick
from embedtrain.data.order.sampler import Batches
from embedtrain.data.order.windows import Drawn
from embedtrain.data.read.sources import Example
from embedtrain.types import InputError

Cut = Callable[[Sequence[Drawn], int, int], Sequence[Drawn]]
Revise = Callable[[int, Sequence[int], list[Example]], list[Example]]
NAMED = 3  # rows of a batch that a message names


class Collate(Protocol):
    """Picked rows to the batch of a step: a function of both, picklable, called in worker processes."""

    def __call__(self, picks: Sequence[Pick], step: int) -> Any:  # noqa: ANN401 - whatever trains on it
        """The batch of B rows at a step, counted in batches."""
        ...


class StepDataset(Dataset[Any]):
    """This rank's batch of any step: `dataset[step]`. Keeps nothing that a step changes but a cache.

    Args:
        batches: steps to global batches.
        collate: rows to a batch.
        cut: (global batch, rank, ranks) to the rank's own part.
        rank: this one.
        world: how many there are.
        offsets: what is added to the row numbers of each dataset, so that each row of the data has its own.
        draws: which negatives the rows of each dataset bring.
        revise: (step, numbers in the data, examples) to as many examples: others may stand in for the rows.
            It is called where batches are made: in the worker processes, ahead of the step, if there are any.
    """

    def __init__(
        self,
        batches: Batches,
        collate: Collate,
        *,
        cut: Cut,
        rank: int = 0,
        world: int = 1,
        offsets: Sequence[int] = (0,),
        draws: Sequence[Draw] = (ALL,),
        revise: Revise | None = None,
    ) -> None:
        self._batches, self._collate = batches, collate
        self._cut, self._rank, self._world = cut, rank, world
        self._offsets, self._draws = offsets, draws
        self._revise = revise

    def drawn(self, step: int) -> Sequence[Drawn]:
        """The rows of a step, before `revise`."""
        return self._cut(self._batches.rows(step), self._rank, self._world)

    def __getitem__(self, step: int) -> Any:  # noqa: ANN401 - whatever the step trains on
        rows = self.drawn(step)
        numbers = [self._offsets[row.dataset] + row.row for row in rows]
        examples = [row.example for row in rows]
        if self._revise is not None:
            examples = self._revise(step, numbers, examples)
        picks = [
            pick(example, row.row, row.epoch, draw=self._draws[row.dataset], number=number)
            for row, number, example in zip(rows, numbers, examples, strict=True)
        ]
        return self._collate(picks, step)

    def places(self, step: int) -> str:
        """Where the rows of this rank's batch of a step are, for messages."""
        rows = self._cut(self._batches.rows(step), self._rank, self._world)
        first = [row.example.where for row in rows[:NAMED]]
        more = len(rows) - len(first)
        return ", ".join(first) + (f" and {more} more" if more > 0 else "")


class StepLoader:
    """Batches of the steps first()..total-1; its length is always `total`.

    Not a DataLoader itself: Lightning would put a distributed sampler into one and slice the slices.
    The step is the only state there is, so the state to save is empty; having one tells Lightning that
    the loader can be resumed.
    """

    def __init__(
        self,
        dataset: StepDataset,
        total: int,
        *,
        first: Callable[[], int],
        num_workers: int,
        pin_memory: bool = False,
    ) -> None:
        self._dataset = dataset
        self._total = total
        self._first = first
        self._num_workers, self._pin_memory = num_workers, pin_memory

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[Any]:
        """The batches that remain.

        Workers, if any, live as long as this iterator and go on making batches while the trainer validates.

        Raises:
            InputError: as making a batch does, or when a worker dies.
            RuntimeError: for any other error, with its step and rows.
        """
        first = self._first()
        signal_handling._SIGCHLD_handler_set = True  # see `_next`
        loader: DataLoader[Any] = DataLoader(
            _Caught(self._dataset) if self._num_workers else self._dataset,
            batch_size=None,
            sampler=range(first, self._total),
            num_workers=self._num_workers,
            collate_fn=_as_made,
            pin_memory=self._pin_memory,
            worker_init_fn=_leave_signals_to_the_parent,
        )
        batches = iter(loader)
        try:
            for step in range(first, self._total):
                yield self._next(batches, step)
        finally:  # workers ignore SIGTERM: left to the exit of the process, they would hang it
            if self._num_workers:
                batches._shutdown_workers()  # type: ignore[attr-defined]

    def _next(self, batches: Iterator[Any], step: int) -> Any:  # noqa: ANN401
        """The batch of a step, or the error of whoever made it.

        Torch looks every 5 s whether the workers live. Its handler of SIGCHLD would tell at once, but raises
        wherever the main thread is: in the lock of a queue, which then stays taken and hangs the process.
        """
        try:
            batch = next(batches)
        except (RuntimeError, ConnectionError, EOFError) as error:
            if type(error) is RuntimeError and "exited unexpectedly" not in str(error):
                raise
            raise InputError(
                f"a worker of data.num_workers died at batch {step} or ahead of it ({error}). The rows "
                f"of that batch are {self._dataset.places(step)}. Workers that the system kills have "
                "mostly run out of memory: lower data.num_workers, or give the job more"
            ) from error
        if isinstance(batch, _Failed):
            raise InputError(batch.message) if batch.mendable else RuntimeError(batch.message)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the trainer's step says it all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def _as_made(batch: Any) -> Any:  # noqa: ANN401
    """The batch; by default arrays, which are of the host, become tensors, which would be moved."""
    return batch


def _leave_signals_to_the_parent(worker: int) -> None:
    """A terminal and SLURM send signals to workers too; the training process saves first, then ends them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


class _Failed(NamedTuple):
    """What a worker sends in the place of a batch that it could not make."""

    message: str
    mendable: bool


class _Caught(Dataset[Any]):
    """The dataset in a worker: torch would wrap an error for the user in the traceback of another process."""

    def __init__(self, dataset: StepDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, step: int) -> Any:  # noqa: ANN401
        try:
            return self._dataset[step]
        except InputError as error:
            return _Failed(str(error), True)
        except Exception:  # raised again in the training process
            trace = traceback.format_exc()
        try:
            places = self._dataset.places(step)
        except Exception as error:  # reading the rows is what failed
            places = f"not to be read ({error})"
        return _Failed(f"batch {step} could not be made; its rows are {places}\n{trace}", False)
