"""The parameters of a trainable pooling: one set for all layers, or a set of its own for each layer."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from embedtrain.model.pooling.block import AttentionBlock
from embedtrain.model.pooling.plain import Setting

FEWEST_LATENTS, MOST_LATENTS = 16, 512


class LatentSet(nn.Module):
    """Latents, the block they take part in and, for poolings over layers, a vector for each layer.

    Attributes:
        latents: (latents, H), drawn from N(0, latent_scale²).
        layer_table: (rows, H), drawn from N(0, table_scale²), row l - 1 for block l; absent without rows.
        block: the attention block.
    """

    def __init__(
        self,
        hidden_size: int,
        latents: int,
        heads: int | None,
        head_width: int | None,
        *,
        latent_scale: float = 1.0,
        rows: int = 0,
        table_scale: float = 1.0,
    ) -> None:
        super().__init__()
        for name, scale in (("latent_scale", latent_scale), ("table_scale", table_scale)):
            if not scale >= 0:
                raise ValueError(f"{name} must be 0 or more, got {scale}")
        self.latents = nn.Parameter(torch.randn(latents, hidden_size) * latent_scale)
        if rows:
            self.layer_table = nn.Parameter(torch.randn(rows, hidden_size) * table_scale)
        self.block = AttentionBlock(hidden_size, heads, head_width)


class LayerSets(nn.Module):
    """Chooses the set of parameters of a layer.

    State dict keys begin with `shared.` or `layer_1.`, `layer_2.`, ...

    Args:
        make: gives the set of a layer.
        num_layers: blocks of the backbone.
        shared: one set, made for layer `num_layers`, for all layers.
    """

    def __init__(self, make: Callable[[int], LatentSet], num_layers: int, *, shared: bool) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be positive, got {num_layers}")
        self.num_layers = num_layers
        self.is_shared = shared
        if shared:
            self.add_module("shared", make(num_layers))
        else:
            for layer in range(1, num_layers + 1):
                self.add_module(f"layer_{layer}", make(layer))

    def of(self, layer: int) -> LatentSet:
        """The set that pools layer `layer`. Raises ValueError when that is not in 1..num_layers."""
        check_layer(layer, self.num_layers)
        found = getattr(self, "shared" if self.is_shared else f"layer_{layer}")
        assert isinstance(found, LatentSet)
        return found

    def settings(self) -> dict[str, Setting]:
        """What the sets are built from again, defaults filled in."""
        some = self.of(self.num_layers)
        return {
            "latents": len(some.latents),
            "heads": some.block.heads,
            "head_width": some.block.head_width,
            "shared": self.is_shared,
        }

    def restrict(self, layers: Collection[int], *, varying: bool) -> None:
        """Freeze the sets of layers outside `layers`, so that no parameter waits for a gradient in vain.

        Raises:
            ValueError: for sets of their own under a plan that changes its layers from step to step
                (`varying`): the sets of the layers that a step leaves out would have no gradient at that
                step, for which DDP waits for ever or fails.
        """
        if self.is_shared:
            return
        if varying:
            raise ValueError(
                "shared=false gives each layer parameters of its own, which a plan that changes its layers "
                "from step to step cannot train: choose shared=true, or a plan that trains the same layers "
                "at every step"
            )
        for layer in range(1, self.num_layers + 1):
            if layer not in layers:
                self.of(layer).requires_grad_(False)


def check_layer(layer: int, num_layers: int) -> None:
    """Raise ValueError when a pooling for `num_layers` blocks has no parameters for block `layer`."""
    if not 1 <= layer <= num_layers:
        raise ValueError(f"layer must be in 1..{num_layers} for a pooling with parameters, got {layer}")


Trainable = TypeVar("Trainable", bound=nn.Module)


def cut_unless_shared(self: Trainable, layer: int) -> Trainable:
    """What a backbone of blocks 1..layer needs: itself where one set serves all layers, else a copy.

    Raises:
        ValueError: if `layer` is outside 1..num_layers.
    """
    pooling: Any = self
    pooling.sets.of(layer)
    return self if pooling.sets.is_shared else with_fewer_layers(self, layer)


def restrict_sets(self: nn.Module, layers: Collection[int], *, varying: bool) -> None:
    """Freeze what a run that only trains `layers` never trains; see `LayerSets.restrict`."""
    pooling: Any = self
    pooling.sets.restrict(layers, varying=varying)


def with_fewer_layers(pooling: Trainable, layer: int) -> Trainable:
    """A copy of `pooling` for a backbone of `layer` blocks: sets and rows of layer tables 1..layer.

    It is built without drawing a random number.
    """
    given: Any = pooling
    with torch.device("meta"):
        copy: Trainable = type(pooling)(hidden_size=given.hidden_size, num_layers=layer, **given.settings())
    own: dict[str, Tensor] = pooling.state_dict()
    # Only layer tables differ in length, and theirs are the leading rows.
    copy.load_state_dict(
        {key: own[key][: len(value)].clone() for key, value in copy.state_dict().items()}, assign=True
    )
    trained = {key: value.requires_grad for key, value in pooling.named_parameters()}
    for key, value in copy.named_parameters():
        value.requires_grad_(trained[key])
    return copy.train(pooling.training)


def latent_count(hidden_size: int, latents: int | None) -> int:
    """`latents`, or an eighth of H within 16..512. Raises ValueError when it is not positive."""
    if latents is None:
        return min(max(hidden_size // 8, FEWEST_LATENTS), MOST_LATENTS)
    if latents < 1:
        raise ValueError(f"latents must be positive, got {latents}")
    return latents
