"""Parts of a backbone that are not trained."""

from __future__ import annotations

from torch import nn

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.types import InputError


def freeze(backbone: Backbone, *, embeddings: bool = False, first_blocks: int = 0) -> None:
    """Leave parts of a backbone as they are in training; nothing else changes.

    Adapters inside a frozen block are frozen too, so add LoRA before.

    Args:
        backbone: changed in place.
        embeddings: freeze all that comes before the first block.
        first_blocks: freeze blocks 1..first_blocks.

    Raises:
        InputError: when the backbone has fewer blocks.
    """
    if not 0 <= first_blocks <= backbone.num_layers:
        raise InputError(f"freeze: first_blocks must be in 0..{backbone.num_layers}, got {first_blocks}")
    if first_blocks and len(backbone.blocks) < backbone.num_layers:
        raise InputError(
            f"freeze: the {backbone.num_layers} blocks of this model have one set of weights, so the first "
            f"{first_blocks} cannot be frozen alone: leave freeze_blocks out"
        )
    if embeddings:
        for value in backbone.embedding_parameters():
            value.requires_grad_(False)
    for block in backbone.blocks[:first_blocks]:
        block.requires_grad_(False)


def trainable_names(module: nn.Module) -> list[str]:
    """Names of the parameters that training changes: all that a checkpoint of a frozen base needs."""
    return [name for name, value in module.named_parameters() if value.requires_grad]
