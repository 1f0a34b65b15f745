"""Random choices that depend on (seed, step) and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")


def generator_at(seed: int, step: int) -> torch.Generator:
    """A generator for one step of one seed, the same on every rank, machine and Python process.

    The pair is hashed: with seed + step, a run with the next seed would repeat this one's draws a step later.
    """
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def draw(items: Sequence[Item], count: int, generator: torch.Generator) -> list[Item]:
    """`count` distinct items in their own order; all of them for -1 or a count beyond their number."""
    if count == -1 or count >= len(items):
        return list(items)
    places = torch.randperm(len(items), generator=generator)[:count].sort().values
    return [items[place] for place in places.tolist()]
