"""Steps of Lightning's trainer, as its callbacks see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytorch_lightning as pl


def whole_step(trainer: pl.Trainer) -> bool:
    """Whether the batch that ends was the last of its optimiser step."""
    return not trainer.fit_loop._should_accumulate()
