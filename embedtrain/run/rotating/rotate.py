"""A finished model and rows to the same model with rotated vectors: encoded once, chosen by layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from embedtrain import console
from embedtrain.data.read.sources import Example
from embedtrain.devices import device_of
from embedtrain.files.atomic import check_free
from embedtrain.files.locks import taken
from embedtrain.files.measured.rotated import Rotated, Tried, write_rotated
from embedtrain.files.owned import recover
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.rotation.rotation import Rotation, combined
from embedtrain.model.rotation.starts import Householder, axes
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.plan.sizes import check_dim, check_distinct, check_layer, full_model, halved_dims
from embedtrain.run.models import model_folder, source_of
from embedtrain.run.rotating.candidates import (
    Encoded,
    Maps,
    Training,
    best_of,
    encoded,
    fixed,
    means_of,
    scores_of,
    trained,
)
from embedtrain.settings.tools import RotateSettings
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.drawn import drawn_rows, pair_batches
from embedtrain.types import InputError, SubModel

AS_IT_IS = "as it is"


class RotatedModel(NamedTuple):
    """What was written."""

    folder: Path
    rotated: Rotated


class _Sizes(NamedTuple):
    layers: tuple[int, ...]
    dims: tuple[int, ...]


def rotate(settings: RotateSettings) -> RotatedModel:
    """Rotate a model: its backbone stays as it is, its whole vectors keep their similarities.

    Raises:
        InputError: if there is no such model or layer, rows are no pairs, or `out` exists already.
    """
    source, out = model_folder(settings.model), Path(settings.out).expanduser()
    if Path(source).resolve().is_relative_to(out.resolve()):
        raise InputError(f"out={settings.out} holds the model that is rotated: choose another folder")
    _check(settings)
    with taken(out):
        recover(out)
        check_free(out, overwrite=settings.overwrite)
        loaded = load_encoder(source, trust_remote_code=settings.trust_remote_code)
        encoder = loaded.to(device_of(settings.device))
        sizes = _sizes(settings, encoder)
        training, held_out = _rows(settings, encoder, sizes.layers)
        maps, rotated = _chosen(settings, sizes, training, held_out)
        _turn(encoder, maps)
        save_encoder(encoder, out, overwrite=settings.overwrite, more=partial(_take_down, rotated))
    return RotatedModel(out, rotated)


def _check(settings: RotateSettings) -> None:
    """Raise InputError for what can be refused before anything is read."""
    check_distinct("starts", settings.starts)
    if settings.reflections:
        Householder(reflections=settings.reflections, lr=settings.lr)


def _sizes(settings: RotateSettings, encoder: Encoder) -> _Sizes:
    """The layers that are rotated, and the dims that count."""
    full = full_model(encoder.num_layers, encoder.width)
    own = encoder.trained
    layers = settings.layers or sorted({sub.layer for sub in own}) or range(1, full.layer + 1)
    dims = settings.dims or sorted({sub.dim for sub in own}) or halved_dims(full.dim)
    if settings.dims is None and max(dims) == min(dims):  # nothing shorter was trained
        dims = halved_dims(full.dim)
    checked = _Sizes(
        tuple(sorted(check_layer("layers", layer, full) for layer in layers)),
        tuple(sorted(check_dim("dims", dim, full) for dim in dims)),
    )
    for name, values in checked._asdict().items():
        check_distinct(name, values)
    return checked


def _rows(
    settings: RotateSettings, encoder: Encoder, layers: Sequence[int]
) -> tuple[list[Encoded], list[Encoded]]:
    """Batches of training rows and of held-out rows, encoded."""
    sources = settings.source if isinstance(settings.source, list) else [settings.source]
    most = max(3, settings.rows // max(1, len(sources)))
    every = [drawn_rows(source, most, settings.seed, "source") for source in sources]
    training, held_out = list[Example](), list[Example]()
    for rows in every:
        count = min(settings.validation_rows // len(sources), len(rows) // 3)
        training, held_out = [*training, *rows[count:]], [*held_out, *rows[:count]]
    if len(held_out) < 2:
        raise InputError(
            f"source: of {sum(map(len, every))} rows too few are left to choose by: give 6 or more, and "
            "validation_rows=2 or more"
        )
    console.log(f"{len(training)} rows to rotate by, {len(held_out)} to choose by")
    parts = [
        pair_batches(rows, encoder, size)
        for rows, size in ((training, settings.batch_size), (held_out, len(held_out)))
    ]
    every_batch = encoded(encoder.eval(), [batch for part in parts for batch in part], layers)
    return every_batch[: len(parts[0])], every_batch[len(parts[0]) :]


def _chosen(
    settings: RotateSettings, sizes: _Sizes, training: Sequence[Encoded], held_out: Sequence[Encoded]
) -> tuple[Maps, Rotated]:
    """The best rotation of each layer, and what was tried."""
    width = training[0].texts.values.shape[-1]
    plain: Maps = {layer: axes("identity", torch.empty(0, width), 0) for layer in sizes.layers}
    candidates: dict[str, Maps] = {AS_IT_IS: plain}
    starts = {start: fixed(start, training, settings.seed) for start in settings.starts}
    candidates |= {start: maps for start, maps in starts.items() if start != "identity"}
    if settings.reflections:
        how = _training(settings, sizes)
        candidates |= {f"trained from {name}": trained(maps, training, how) for name, maps in starts.items()}
    found = {name: scores_of(maps, held_out, sizes.dims) for name, maps in candidates.items()}
    scores = {name: own for name, (_, own) in found.items()}
    best = best_of(scores)
    tried = []
    for layer in sizes.layers:
        for name, own in scores.items():
            each = tuple(own[SubModel(layer, dim)] for dim in sizes.dims)
            tried.append(Tried(layer, name, means_of(own)[layer], each, best[layer] == name))
    metric = found[AS_IT_IS][0]
    rows, rows_held_out = (sum(len(each.batch.rows) for each in part) for part in (training, held_out))
    said = Rotated(source_of(settings.model), metric, sizes.dims, rows, rows_held_out, tuple(tried))
    return {layer: candidates[name][layer] for layer, name in best.items() if name != AS_IT_IS}, said


def _training(settings: RotateSettings, sizes: _Sizes) -> Training:
    objective = Objective(settings.loss.build(seed=settings.seed), reduction="mean")
    if objective.needs:
        needed = ", ".join(sorted(objective.needs))
        raise InputError(f"loss needs {needed}, which rotating by pairs lacks: use loss=infonce")
    return Training(
        BatchLoss(objective, gather="none"),
        BatchLoss(Objective(CoSENT(), reduction="mean"), gather="none"),
        sizes.dims,
        settings.reflections,
        settings.lr,
        settings.epochs,
        settings.seed,
    )


def _turn(encoder: Encoder, maps: Maps) -> None:
    """Put maps behind what turns an encoder already."""
    own = encoder.rotation
    had: dict[int, Tensor] = {} if own is None else {layer: own.matrix(layer) for layer in own.layers}
    if not (had or maps):
        return
    rotation = Rotation(combined(had, sorted(maps), encoder.width))
    rotation.start(maps)
    encoder.rotate(rotation.to(encoder.device))


def _take_down(rotated: Rotated, folder: Path) -> None:
    write_rotated(folder, rotated)
