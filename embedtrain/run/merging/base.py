"""The model that a run began with: taken down as it begins, found and checked when runs are merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from embedtrain.files.run_record import Record
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.contract import tensors_hash
from embedtrain.model.folder.describe import plain_weights
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.gates import GATES, match_gates
from embedtrain.run.build import pooled
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.component import TARGET, Component
from embedtrain.types import InputError

TRAINING_ONLY = ("lora", "dropout", "freeze_embeddings", "freeze_blocks", "gradient_checkpointing")
CURE = "Give the model that training began with as base=FOLDER"


def base_facts(settings: TrainSettings, encoder: Encoder) -> dict[str, str]:
    """What a record says of its base.

    Args:
        settings: of the run.
        encoder: what it begins with.
    """
    path = str(settings.backbone.settings.get("path", encoder.origin))
    local = Path(path).expanduser()
    return {"path": str(local.resolve()) if local.exists() else path, "weights": base_hash(encoder)}


def base_hash(encoder: Encoder) -> str:
    """A hash of all tensors, adapters merged."""
    return start_hash(plain_weights(encoder))


def start_hash(weights: Mapping[str, Tensor]) -> str:
    """A hash of what training begins with, the same with gates that are all open as without any."""
    counted = {name: tensor for name, tensor in weights.items() if name != GATES or tensor.any()}
    return tensors_hash(counted)[:40]


def recorded_hash(record: Record) -> str | None:
    """The hash of what a run began with; None where its record does not say, as of a run with LoRA before."""
    if (found := record.base.get("weights")) is not None:
        return found
    return None if record.part("backbone").get("lora") else record.identity.get("starting weights")


def recorded_base(name: str, record: Record, pooling: str, *, trust_remote_code: bool) -> Encoder:
    """What a run began with, built anew: weights that its seed drew are drawn again.

    Args:
        name: of the run, for messages.
        record: its config.yaml, which cannot say itself that code may run.
        pooling: of what it ended with, by name.
        trust_remote_code: whether code in the folder of the base may.

    Raises:
        InputError: if it is not there any more, or is another model now.
    """
    backbone, chosen = record.part("backbone"), record.part("pooling")
    plain: dict[str, Any] = {key: value for key, value in backbone.items() if key not in TRAINING_ONLY}
    plain["trust_remote_code"] = trust_remote_code
    path = record.base.get("path") or plain.get("path")
    if not path:
        raise InputError(f"{name} does not say what it began with. {CURE}")
    pl.seed_everything(int(record.config.get("seed", 0)), verbose=False)
    given = Component.of(chosen, "pooling") if chosen.get(TARGET) else None
    try:
        if TARGET in backbone:
            encoder = pooled(Component.of({**plain, "path": path}, "backbone"), given)
        else:  # a merge, which has none of its own
            encoder = load_encoder(path, trust_remote_code=trust_remote_code)
            match_gates(encoder, pooling)
    except InputError as error:
        raise InputError(f"what {name} began with cannot be read: {error}. {CURE}") from error
    expected = recorded_hash(record)
    if expected is not None and base_hash(encoder) != expected:
        raise InputError(f"{path} is not what {name} began with: its weights have changed. {CURE}")
    return encoder


def check_base(names: list[str], weights: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    """Check that a base has the tensors of the ingredients.

    Raises:
        InputError: naming one that it lacks, or has in another shape.
    """
    for key, tensor in weights.items():
        there = base.get(key)
        if there is None or there.shape != tensor.shape:
            said = "none" if there is None else f"one of {tuple(there.shape)}"
            raise InputError(
                f"the base is not what {names[0]} began with: of {key} {tuple(tensor.shape)} it has "
                f"{said}. {CURE}"
            )
