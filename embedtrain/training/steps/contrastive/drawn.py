"""Batches of rows drawn by a seed, for what asks a loss of pairs and is no training of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from embedtrain.data.order.draw import pick
from embedtrain.data.permutation import Permutation
from embedtrain.data.read.sources import Example, offered, read_examples
from embedtrain.model.encoder import Encoder
from embedtrain.training.steps.contrastive.collate import collate
from embedtrain.types import Batch, InputError


def drawn_rows(source: Any, most: int, seed: int, setting: str) -> list[Example]:  # noqa: ANN401
    """Some rows of a source, drawn by the seed.

    Args:
        source: whatever the setting holds.
        most: how many at most.
        seed: of the draw.
        setting: its name, for messages.

    Raises:
        InputError: for what is no source of pairs, or fewer than two of them.
    """
    if not isinstance(source, str):
        raise InputError(f"{setting} must be a file, a folder, a hub name or a list of them, got {source!r}")
    rows = read_examples(source)
    if bad := next((row for row in rows if not row.positives), None):
        raise InputError(f"{setting}: {bad.where} is a text alone, and pairs are needed")
    if len(rows) < 2:
        raise InputError(f"{setting}: {source} holds one row, and two or more are needed to contrast them")
    chosen = Permutation(len(rows), (seed, 0))(torch.arange(min(most, len(rows))).numpy())
    return [rows[number] for number in chosen.tolist()]


def pair_batches(rows: Sequence[Example], encoder: Encoder, size: int) -> list[Batch]:
    """Batches of about `size` rows each, none of a single one; scored rows and others apart."""
    found = []
    for scored in (False, True):
        own = [row for row in rows if ("scores" in offered([row])) is scored]
        count = max(1, len(own) // max(2, size))
        parts = [own[number::count] for number in range(count)]
        found += [
            collate([pick(row, number) for number, row in enumerate(part)], encoder.process)
            for part in parts
            if len(part) > 1
        ]
    return found
