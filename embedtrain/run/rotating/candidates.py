"""Rotations of vectors that are encoded once: fixed ones, trained ones, and which is best for a layer.

Letters: L layers, M texts, D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from embedtrain.console import Progress
from embedtrain.model.encoder import Encoder
from embedtrain.model.rotation.rotation import Rotation
from embedtrain.model.rotation.starts import Householder, Start, axes
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.validation import Collected, sub_model_scores
from embedtrain.types import Batch, Embeddings, SubModel, Weighted

Maps = dict[int, Tensor]  # layer to an orthogonal (D, D)


class Encoded(NamedTuple):
    """A batch whose texts are encoded."""

    batch: Batch
    texts: Embeddings  # (L, M, D) on the CPU


class Training(NamedTuple):
    """How reflections are trained."""

    pairs: BatchLoss
    scored: BatchLoss  # of batches whose rows have scores
    dims: Sequence[int]
    reflections: int
    lr: float
    epochs: int
    seed: int


@torch.no_grad()
def encoded(encoder: Encoder, batches: Sequence[Batch], layers: Sequence[int]) -> list[Encoded]:
    """The vectors of all batches after some layers."""
    found = []
    with Progress(steady=True) as progress:
        for number, batch in enumerate(batches, 1):
            texts = encoder(batch.inputs.to_device(encoder.device), layers)
            found.append(Encoded(batch, texts._replace(values=texts.values.float().cpu())))
            progress("encoding batches", number, len(batches))
    return found


def fixed(start: Start, training: Sequence[Encoded], seed: int) -> Maps:
    """The axes of each layer by the vectors of the training batches."""
    layers = training[0].texts.layers
    every = torch.cat([each.texts.values for each in training], dim=1)  # (L, M, D)
    return {layer: axes(start, vectors, seed + layer) for layer, vectors in zip(layers, every, strict=True)}


def trained(start: Maps, training: Sequence[Encoded], how: Training) -> Maps:
    """Reflections behind a start, trained on all prefixes of all layers; the product of both.

    The rate falls to 0 in a line. Batches come in an order drawn for each epoch.
    """
    layers, width = list(start), len(next(iter(start.values())))
    settings = Householder(reflections=how.reflections, lr=how.lr)
    rotation = settings.rotation(layers, width, how.seed, Rotation(start))
    chosen = tuple(Weighted(SubModel(layer, dim), 1.0) for layer in layers for dim in how.dims)
    steps = how.epochs * len(training)
    optimizer = torch.optim.Adam(rotation.parameters(), lr=how.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / steps)
    generator = torch.Generator().manual_seed(how.seed)
    with Progress(steady=True) as progress:
        for epoch in range(how.epochs):
            for place, number in enumerate(torch.randperm(len(training), generator=generator).tolist(), 1):
                batch, texts = training[number]
                loss = how.pairs if batch.links.scores is None else how.scored
                optimizer.zero_grad()
                torch.autograd.backward(loss(rotated(texts, rotation), batch, chosen, 0)[0].total)
                optimizer.step()
                schedule.step()
                progress("training reflections", epoch * len(training) + place, steps)
    return {layer: rotation.matrix(layer).double() for layer in layers}


def rotated(texts: Embeddings, rotation: Rotation) -> Embeddings:
    """The vectors of its layers, rotated."""
    values = [rotation(vectors, layer) for layer, vectors in zip(texts.layers, texts.values, strict=True)]
    return texts._replace(values=torch.stack(values))


def scores_of(
    maps: Maps, held_out: Sequence[Encoded], dims: Sequence[int]
) -> tuple[str, dict[SubModel, float]]:
    """The metric and the score of each (layer, dim): Spearman of held-out rows with scores, else nDCG@10."""
    rotation = Rotation(maps)
    turned = [rotated(each.texts, rotation) for each in held_out]
    texts, links = Collected(turned, [each.batch.links for each in held_out]).joined()
    subs = [SubModel(layer, dim) for layer in texts.layers for dim in dims]
    with torch.no_grad():
        return sub_model_scores(texts, links, subs)


def best_of(scores: Mapping[str, Mapping[SubModel, float]]) -> dict[int, str]:
    """The candidate of each layer with the highest mean over its dims; of equal ones the first."""
    layers = sorted({sub.layer for sub in next(iter(scores.values()))})
    means = {name: means_of(own) for name, own in scores.items()}
    return {layer: max(means, key=lambda name: means[name][layer]) for layer in layers}


def means_of(scores: Mapping[SubModel, float]) -> dict[int, float]:
    """The mean over the dims of each layer."""
    by_layer: dict[int, list[float]] = {}
    for sub, value in scores.items():
        by_layer.setdefault(sub.layer, []).append(value)
    return {layer: sum(values) / len(values) for layer, values in by_layer.items()}
