"""How often each dataset of a run trains: shares of its steps or rows, as whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from embedtrain.data.order.draw import Draw
from embedtrain.data.stores.memory import Store
from embedtrain.types import InputError

Sampling = Literal["proportional", "weights", "temperature"]


class Use(NamedTuple):
    """How one dataset is used; None takes the setting of all datasets."""

    draw: Draw = Draw()
    weight: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    in_batch: bool | None = None  # whether its queries meet what others of the batch brought


class Dataset(NamedTuple):
    """The rows of one task, and how they are used."""

    store: Store
    use: Use = Use()


class Mix(NamedTuple):
    """How the datasets share the run."""

    sampling: Sampling = "proportional"
    alpha: float = 0.5  # of "temperature": p ~ n^alpha
    epochs: int = 1

    def check(self, datasets: Sequence[Dataset]) -> None:
        """Refuse settings of a dataset that this way to sample does not look at. Raises InputError."""
        looks_at = {"weight": "weights", "epochs": "proportional"}
        for dataset in datasets:
            for name, sampling in looks_at.items():
                if getattr(dataset.use, name) is not None and self.sampling != sampling:
                    raise InputError(
                        f"dataset {dataset.store.task!r} has {name} of its own, which data.sampling="
                        f"{self.sampling} does not look at: choose data.sampling={sampling}, or leave it out."
                    )

    def shares(self, datasets: Sequence[Dataset], sizes: Sequence[int]) -> list[Fraction]:
        """What each dataset is to have of the run, in proportion to each other.

        Args:
            datasets: D of them.
            sizes: batches (or rows) that an epoch of each has, (D,).
        """
        if self.sampling == "weights":
            return [Fraction(1 if dataset.use.weight is None else dataset.use.weight) for dataset in datasets]
        if self.sampling == "temperature":
            return [Fraction(float(size) ** self.alpha) for size in sizes]
        return [Fraction(self._epochs(dataset) * size) for dataset, size in zip(datasets, sizes, strict=True)]

    def length(self, datasets: Sequence[Dataset], sizes: Sequence[int]) -> int:
        """Batches (or rows) of the run that nothing else bounds: the epochs of all datasets."""
        return sum(self._epochs(dataset) * size for dataset, size in zip(datasets, sizes, strict=True))

    def _epochs(self, dataset: Dataset) -> int:
        return self.epochs if dataset.use.epochs is None else dataset.use.epochs


def apportion(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Whole numbers of sum `total` in proportion to the shares: rounded down, the largest remainders up.

    Raises:
        InputError: when no share is above 0.
    """
    whole = sum(shares)
    if not whole > 0:
        raise InputError("all datasets have the weight 0: there is nothing to train on.")
    exact = [total * share / whole for share in shares]
    counts = [int(number) for number in exact]
    order = sorted(range(len(shares)), key=lambda place: counts[place] - exact[place])
    for place in order[: total - sum(counts)]:
        counts[place] += 1
    return counts
