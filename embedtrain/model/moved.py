"""How far an encoder is from the one that training began with: weights, adapters, vectors of each cut."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.files.measured.weights import Adapters, Moved, MovedCut
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.lora import ADAPTER
from embedtrain.model.backbone.merging import adapted_layers, merged_adapters
from embedtrain.model.encoder import Encoder
from embedtrain.types import SubModel


@torch.no_grad()
def moved_blocks(before: Encoder, after: Encoder) -> tuple[Moved, ...]:
    """Each group of parameters before and after, in the order of the model; adapters count as merged.

    A group that began at zero, as the queries of a gated mean, is left out: it has no size to compare with.

    Args:
        before: the encoder that training began with.
        after: the same one, trained.
    """
    groups: dict[str, _Sum] = {}
    with merged_adapters(before.backbone.model), merged_adapters(after.backbone.model):
        old = dict(before.backbone.model.named_parameters())
        where = _blocks(after.backbone)
        for name, new in after.backbone.model.named_parameters():
            own = where.get(id(new), "embeddings" if "embed" in name else "other")
            groups.setdefault(own, _Sum()).add(old[name], new)
    first = dict(_pooling(before))
    for name, last in _pooling(after):
        groups.setdefault("pooling", _Sum()).add(first[name], last)
    return tuple(group.moved(name) for name, group in groups.items() if group.below > 0)


@torch.no_grad()
def adapters_moved(after: Encoder) -> Adapters | None:
    """What the LoRA adapters do to the weights below them; None without any."""
    model = after.backbone.model
    layers = [(path, cast(Any, layer)) for path, layer in adapted_layers(model)]
    if not layers:
        return None
    base = {path: layer.get_base_layer().weight for path, layer in layers}
    update = [layer.get_delta_weight(ADAPTER).cpu().double().norm().item() for _, layer in layers]
    below = [weight.cpu().double().norm().item() for weight in base.values()]
    merged = _Sum()
    with merged_adapters(model):
        for path, weight in base.items():
            merged.add(weight, cast(Tensor, model.get_submodule(path).weight))
    moved = math.hypot(*update) / math.hypot(*below)
    return Adapters(len(layers), moved, merged.moved("").changed)


@torch.no_grad()
def moved_cuts(
    before: Encoder, after: Encoder, texts: Sequence[str], subs: Sequence[SubModel]
) -> tuple[MovedCut, ...]:
    """The cosines of the vectors of some texts before and after, of each sub-model; none without texts."""
    if not texts:
        return ()
    layers = sorted({sub.layer for sub in subs})
    old, new = (encoder.encode(texts, layers, "query") for encoder in (before, after))
    found = []
    for sub in subs:
        cosines = F.cosine_similarity(old.at(sub).double(), new.at(sub).double())
        found.append(MovedCut(sub.layer, sub.dim, float(cosines.mean()), float(cosines.min())))
    return tuple(found)


class _Sum:
    """Adds up what changed of a group."""

    def __init__(self) -> None:
        self.parameters = self.changed = 0
        self.squares = self.below = self.largest = 0.0

    def add(self, old: Tensor, new: Tensor) -> None:
        """One parameter."""
        old, new = old.detach().cpu(), new.detach().cpu()
        change = (new.double() - old.double()).abs()
        self.parameters += new.numel()
        self.changed += int((new != old).sum())
        self.squares += float(change.square().sum())
        self.below += float(old.double().square().sum())
        self.largest = max(self.largest, float(change.max()) if change.numel() else 0.0)

    def moved(self, name: str) -> Moved:
        """The group; against a norm of 0 any change counts as 1."""
        norm = math.sqrt(self.below) or math.sqrt(self.squares) or 1.0
        share = self.changed / max(1, self.parameters)
        return Moved(name, self.parameters, math.sqrt(self.squares) / norm, self.largest, share)


def _blocks(backbone: Backbone) -> dict[int, str]:
    """The block of each parameter that is in one, by its id."""
    return {id(item): str(n) for n, block in enumerate(backbone.blocks, 1) for item in block.parameters()}


def _pooling(encoder: Encoder) -> Iterator[tuple[str, Tensor]]:
    pooling = encoder.pooling
    yield from pooling.named_parameters() if isinstance(pooling, nn.Module) else ()
