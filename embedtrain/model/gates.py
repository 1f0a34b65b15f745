"""Trained gates for a backbone whose own pooling is the mean; any other pooling stays as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embedtrain.model.encoder import Encoder
from embedtrain.model.pooling import GatedMean, Mean
from embedtrain.types import InputError

GATES = "pooling.queries"  # in the weights of an encoder


@dataclass(frozen=True)
class OwnGated:
    """What the backbone's folder says, a mean with gates: they begin open, so no vector changes at first.

    Args:
        lr: learning rate of the gates, which never decay.

    Raises:
        InputError: for a rate that is not positive and finite.
    """

    lr: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr must be above 0, got {self.lr}")

    def apply(self, encoder: Encoder) -> None:
        """Give an encoder that pools by the mean gates; one that has gates learns them at this rate."""
        if isinstance(encoder.pooling, GatedMean):
            encoder.pooling.lr = self.lr
        if isinstance(encoder.pooling, Mean):
            open_gates(encoder, self.lr)


def open_gates(encoder: Encoder, lr: float = OwnGated.lr) -> None:
    """Give an encoder that pools by the mean gates, all of them 1."""
    hidden, layers = encoder.backbone.hidden_size, encoder.num_layers
    encoder.pooling = GatedMean(hidden_size=hidden, num_layers=layers, lr=lr)


def match_gates(base: Encoder, pooling: str) -> None:
    """Give what training began with the gates that it trained, all of them 1.

    Args:
        base: as its folder has it.
        pooling: of what training ended with, by name.
    """
    if pooling == GatedMean.name and isinstance(base.pooling, Mean):
        open_gates(base)
