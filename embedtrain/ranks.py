"""The processes of one command, outside a training step: who one is, and what small values all of them have.

What ranks tell each other during a step is in `training/distributed.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

Value = TypeVar("Value")


_alone = 0  # how many `alone` contexts this process is in


def world_size() -> int:
    """How many ranks there are; 1 without a process group, or `alone`."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works by itself, whatever group there is: what one rank does for all."""
    global _alone
    _alone += 1
    try:
        yield
    finally:
        _alone -= 1


def rank() -> int:
    """The number of this rank, 0-based; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def local_rank() -> int:
    """The number of this process on its machine, as a launcher says it; 0 without a launcher."""
    return dist.get_node_local_rank(fallback_rank=0) if dist.is_available() else 0


def all_ranks(value: Value) -> list[Value]:
    """What every rank gives, in rank order; all must call. Small values only: they travel pickled."""
    if world_size() == 1:
        return [value]
    found: list[Value] = [value] * world_size()
    dist.all_gather_object(found, value)
    return found


def wait() -> None:
    """Return once every rank has called."""
    if world_size() > 1:
        all_ranks(None)


@contextmanager
def process_group(*, timeout_minutes: float = 120.0) -> Iterator[None]:
    """A gloo group of the processes that torchrun or SLURM started, which the environment describes.

    Gloo, since what these ranks say to each other outside training is small and on the CPU.
    """
    dist.init_process_group("gloo", timeout=timedelta(minutes=timeout_minutes))
    try:
        yield
    finally:
        dist.destroy_process_group()
