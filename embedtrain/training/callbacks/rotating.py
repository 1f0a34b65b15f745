"""The start of a rotation, once in the life of a run, before its first step of vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytorch_lightning as pl
from torch import Tensor

from embedtrain import ranks
from embedtrain.model.encoder import Encoder


class StartRotation(pl.Callback):
    """Lets the rotation of an encoder begin where it has not; checkpoints say whether it has.

    Args:
        encoder: whose rotation it is.
        axes_of: the orthogonal matrix of each layer, worked out by every rank.
    """

    def __init__(self, encoder: Encoder, axes_of: Callable[[], Mapping[int, Tensor]]) -> None:
        self.encoder, self.axes_of = encoder, axes_of

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin; a checkpoint has been read by now."""
        rotation = self.encoder.rotation
        if rotation is not None and not bool(rotation.is_started):
            rotation.start(ranks.all_ranks(dict(self.axes_of()))[0])
