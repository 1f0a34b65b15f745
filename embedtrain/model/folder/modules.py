"""The modules of a sentence-transformers folder: how it pools, what follows the pooling, what is not read.

Names of modules and keys are those of sentence-transformers 2 to 6.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from embedtrain.files.reading import read_json
from embedtrain.model.folder.contract import AGAIN, read_object
from embedtrain.model.folder.module import (
    FoundPooling,
    Stored,
    flag,
    read_dense,
    read_gate,
    read_pooling,
    read_state,
    weights_of,
)
from embedtrain.model.rotation.rotation import FILE, padded, read_rotation
from embedtrain.types import InputError

LOG = logging.getLogger(__name__)

MODULES = "modules.json"
STATE_POOLING = "embedtrain_pooling.StatePooling"  # the type of our own pooling module
STEPS = ("Dense", "LayerNorm", "Normalize", "Dropout")  # what may follow the pooling


class Found(NamedTuple):
    """What the modules of a folder say."""

    transformer: Path
    pooling: FoundPooling | None = None  # None where it was not asked for, or the folder has no modules
    include_prompt: bool | None = None  # whether the tokens of a prompt are pooled
    width: int | None = None  # leading coordinates that are kept
    rotation: Mapping[int, Tensor] = {}  # by layer, what turns its vectors
    normalize: bool = True
    plain: bool = False  # a Hugging Face folder


class _Module(NamedTuple):
    kind: str
    folder: Path


def read_modules(folder: Path, *, pooling_given: bool) -> Found:
    """What `modules.json` and the folders of its modules say.

    With `pooling_given` neither the pooling nor what follows it is read, but for a last `Normalize`.

    Raises:
        InputError: for a module, or a setting of one, that embedtrain does not have.
    """
    modules = _listed(folder)
    if not modules:
        return Found(folder, plain=True)
    transformer, *rest = modules
    gate = rest.pop(0) if rest[0].kind == "Dense" else None
    pooling, *rest = rest
    normalize = bool(rest) and rest[-1].kind == "Normalize"
    if normalize:
        rest = rest[:-1]
    path = pooling.folder / "config.json"
    prompt = flag(path, _optional(path), "include_prompt", default=True)
    found = Found(transformer.folder, include_prompt=prompt, normalize=normalize)
    steps, rotation = list(rest), read_rotation(folder, AGAIN)
    if steps and _keeps_first(steps[-1], rotation):
        width = int(read_object(steps.pop().folder / "config.json")["out_features"])
        found = found._replace(width=width, rotation=rotation)
    elif rotation:
        LOG.warning("%s: %s is left out: what follows the pooling is another layer by now", folder, FILE)
    if not pooling_given:
        own = read_pooling(pooling.folder)
        return found._replace(pooling=_followed(own if gate is None else read_gate(gate.folder, own), steps))
    if gate is not None:
        LOG.warning("%s: the pooling that is given replaces its gates", folder)
    if steps:
        names = ", ".join(step.folder.name for step in steps)
        LOG.warning("%s: the pooling that is given replaces what follows it too: %s", folder, names)
        found = found._replace(width=None, rotation={})
    return found


def _listed(folder: Path) -> list[_Module]:
    """The modules in order, transformer and pooling first; none of a plain Hugging Face folder."""
    path = folder / MODULES
    if not path.is_file():
        return []
    entries = read_json(path, AGAIN)
    try:
        modules = [(str(entry["type"]), folder / str(entry["path"])) for entry in entries]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not a list of modules ({error}): fetch the model again") from error
    known = ("Transformer", "Pooling", *STEPS)
    for kind, _ in modules:
        plain = kind.startswith("sentence_transformers.") and kind.rpartition(".")[2] in known
        if not plain and kind != STATE_POOLING:
            raise InputError(
                f"{path} has a module {kind!r}, which embedtrain does not read: it takes {', '.join(known)}. "
                "Point to the Hugging Face model inside, or choose another model"
            )
    listed = [_Module(kind.rpartition(".")[2], place) for kind, place in modules]
    kinds = [module.kind for module in listed]
    if kinds[:3] == ["Transformer", "Dense", "Pooling"]:
        kinds.pop(1)
    if kinds[:2] not in (["Transformer", "Pooling"], ["Transformer", "StatePooling"]) or not set(
        kinds[2:]
    ) <= set(STEPS):
        raise InputError(
            f"{path} must list Transformer, Pooling and perhaps some of {', '.join(STEPS)}, got {kinds}"
        )
    return listed


def _keeps_first(module: _Module, rotation: Mapping[int, Tensor]) -> bool:
    """Whether a module only keeps the first coordinates, maybe of the rotated vector: what a cut ends in.

    Training it elsewhere makes it a layer as any other, whatever its width.
    """
    if module.kind != "Dense":
        return False
    dense = read_dense(module.folder)
    if dense["bias"] or dense["residual"] or dense["activation"] != "Identity":
        return False
    weight = read_state(weights_of(module.folder))["linear.weight"]
    kept = [torch.eye(*weight.shape)]
    kept += [padded(rotation[max(rotation)], weight.shape[1])] if rotation else []
    return any(torch.equal(weight, each.to(weight.dtype)) for each in kept)


def _followed(pooling: FoundPooling, modules: Sequence[_Module]) -> FoundPooling:
    """A pooling with what follows it."""
    steps: list[dict[str, Any]] = []
    weights = [stored._replace(target=f"pooling.{stored.target}") for stored in pooling.weights]
    for kind, folder in modules:
        if kind == "Dropout":
            LOG.warning("%s: embedtrain leaves Dropout after the pooling out of training", folder)
            continue
        if kind == "Normalize":
            steps.append({"kind": "normalize"})
            continue
        if kind == "Dense":
            steps.append({"kind": "dense", **read_dense(folder)})
        else:
            config = read_object(folder / "config.json")
            steps.append({"kind": "layer_norm", "width": int(config["dimension"])})
        weights.append(Stored(weights_of(folder), "", f"steps.{len(steps) - 1}."))
    if not steps:
        return pooling
    settings: dict[str, Any] = {"pooling": pooling.name, "settings": pooling.settings, "steps": steps}
    return FoundPooling("projected", settings, tuple(weights), pooling.query)


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
