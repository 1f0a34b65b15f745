"""The modules of a sentence-transformers folder: how it pools, what follows the pooling, what is not read.

Names of modules and keys are those of sentence-transformers 2 to 6.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from embedtrain.files.reading import read_json, reading
from embedtrain.model.folder.contract import AGAIN, read_object
from embedtrain.model.pooling import Setting, sentence_transformers_keys
from embedtrain.model.rotation.rotation import FILE, padded, read_rotation
from embedtrain.types import InputError

LOG = logging.getLogger(__name__)

MODULES = "modules.json"
STATE_POOLING = "embedtrain_pooling.StatePooling"  # the type of our own pooling module
STEPS = ("Dense", "LayerNorm", "Normalize", "Dropout")  # what may follow the pooling
_MODE = "pooling_mode_"
_VECTOR = "sentence_embedding"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class Stored(NamedTuple):
    """Weights of a part of a pooling."""

    file: Path
    prefix: str  # of the names in the file
    target: str  # the prefix that these names have in the pooling


class FoundPooling(NamedTuple):
    """How a folder pools."""

    name: str
    settings: dict[str, Setting]
    weights: tuple[Stored, ...] = ()

    def state(self) -> dict[str, Tensor]:
        """The trained parameters under the pooling's names."""
        return {
            stored.target + name.removeprefix(stored.prefix): value
            for stored in self.weights
            for name, value in read_state(stored.file).items()
            if name.startswith(stored.prefix)
        }


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
    transformer, pooling, *rest = modules
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
        return found._replace(pooling=_followed(_pooling(pooling.folder), steps))
    if steps:
        names = ", ".join(step.folder.name for step in steps)
        LOG.warning("%s: the pooling that is given replaces what follows it too: %s", folder, names)
        found = found._replace(width=None, rotation={})
    return found


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights; no code in it is run."""
    with reading(file, AGAIN):
        if file.suffix == ".bin":
            state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
            return state
        return load_file(file)


def name_unread(path: Path, found: Mapping[str, Any], known: Sequence[str]) -> None:
    """Say which keys of a file embedtrain does not read, those without a value excepted."""
    unread = [key for key, value in found.items() if key not in known and value not in (None, {}, [], "")]
    if unread:
        LOG.warning("%s: embedtrain does not read %s", path, ", ".join(unread))


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
    dense = _dense(module.folder)
    if dense["bias"] or dense["residual"] or dense["activation"] != "Identity":
        return False
    weight = read_state(_weights(module.folder))["linear.weight"]
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
            steps.append({"kind": "dense", **_dense(folder)})
        else:
            config = read_object(folder / "config.json")
            steps.append({"kind": "layer_norm", "width": int(config["dimension"])})
        weights.append(Stored(_weights(folder), "", f"steps.{len(steps) - 1}."))
    if not steps:
        return pooling
    settings: dict[str, Setting] = {"pooling": pooling.name, "settings": pooling.settings, "steps": steps}
    return FoundPooling("projected", settings, tuple(weights))


def _dense(folder: Path) -> dict[str, Any]:
    """The arguments of a `Dense` module."""
    path = folder / "config.json"
    config = read_object(path)
    known = ["in_features", "out_features", "bias", "activation_function", "use_residual"]
    name_unread(path, config, [*known, "module_input_name", "module_output_name"])
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, _VECTOR):
            raise InputError(
                f"{path} has {key} {config[key]!r}; embedtrain reads a Dense of {_VECTOR} only. Point to the "
                "Hugging Face model inside, or choose another model"
            )
    activation = str(config.get("activation_function") or "torch.nn.modules.activation.Tanh")
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or not hasattr(torch.nn, name):
        raise InputError(
            f"{path} has activation_function {activation!r}, which embedtrain does not read: it takes those "
            "of torch.nn, such as torch.nn.modules.activation.Tanh"
        )
    try:
        sizes = {key: int(config[key]) for key in ("in_features", "out_features")}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not describe a Dense module ({error}): fetch it again") from error
    bias, residual = (flag(path, config, key, default=key == "bias") for key in ("bias", "use_residual"))
    return {**sizes, "bias": bias, "activation": name, "residual": residual}


def _weights(folder: Path) -> Path:
    found = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not found:
        raise InputError(f"{folder} has no weights ({_WEIGHTS[0]}): fetch or save the model again")
    return found[0]


def _pooling(folder: Path) -> FoundPooling:
    """The pooling of the second module's folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{path} is missing, so the pooling is unknown: fetch the model again")
    config = read_object(path)
    if "settings" not in config:
        return _mode(path, config)
    try:
        name, settings = str(config["pooling"]), dict(config["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not say how to pool ({error}): save the model again") from error
    weights = folder / _WEIGHTS[0]
    return FoundPooling(name, settings, (Stored(weights, "pooling.", ""),) if weights.is_file() else ())


def _mode(path: Path, config: dict[str, Any]) -> FoundPooling:
    """The pooling of a `Pooling` module, in the keys of version 6 or those before."""
    legacy = [key for key in config if key.startswith(_MODE)]
    on = [key for key in legacy if flag(path, config, key, default=False)]
    sizes = ["word_embedding_dimension", "embedding_dimension", "include_prompt", "pooling_mode"]
    name_unread(path, config, [*sizes, *legacy])
    ours = {as_mode(key): name for name, key in sentence_transformers_keys().items()}
    modes = config.get("pooling_mode")
    if modes is None:  # their order is fixed, whatever the file's
        modes = [mode for mode in ST_ORDER if any(as_mode(key) == mode for key in on)]
        modes += [as_mode(key) for key in on if as_mode(key) not in ST_ORDER]
    asked = [modes] if isinstance(modes, str) else list(modes) if isinstance(modes, list) else [str(modes)]
    names = asked or ["mean"]
    if strange := [name for name in names if name not in ours]:
        raise InputError(
            f"{path} asks for pooling {strange[0]}, which embedtrain does not have; it has "
            f"{', '.join(ours)}. Pass another as pooling=... to replace it"
        )
    if "weightedmean" in names and not flag(path, config, "include_prompt", default=True):
        raise InputError(
            f"{path} leaves prompts out of a weighted mean but counts their tokens in its weights, which "
            "embedtrain does not: pass pooling=... and include_prompt=... to choose another way"
        )
    chosen = [ours[name] for name in names]
    return (
        FoundPooling(chosen[0], {}) if len(chosen) == 1 else FoundPooling("concat", {"of": "+".join(chosen)})
    )


# How sentence-transformers concatenates where a folder says which poolings, and not in which order.
ST_ORDER = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def as_mode(key: str) -> str:
    """What version 6 calls a key of those before: "mean" of "pooling_mode_mean_tokens"."""
    mode = key.removeprefix(_MODE)
    return mode if mode == "mean_sqrt_len_tokens" else mode.removesuffix("_tokens").removesuffix("_token")


def flag(path: Path, settings: dict[str, Any], key: str, *, default: bool) -> bool:
    """A setting that is true or false; null is false, as in Python. Raises InputError for anything else."""
    value = settings.get(key, default)
    if value not in (None, True, False):
        raise InputError(f"{path}: {key} is {value!r}: write true or false")
    return bool(value)


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
