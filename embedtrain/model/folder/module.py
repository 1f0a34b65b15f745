"""What the folder of one module of sentence-transformers says: pooling, gate before it, layer behind it.

Names of modules and keys are those of sentence-transformers 2 to 6.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from embedtrain.files.reading import reading
from embedtrain.model.folder.contract import AGAIN, read_object
from embedtrain.model.pooling import GatedMean, Setting, sentence_transformers_keys
from embedtrain.model.pooling.gated import from_glu
from embedtrain.types import InputError

LOG = logging.getLogger(__name__)

QUERIES = "queries.safetensors"  # of a gated mean, of all layers (L, H), beside the gate of the last
TOKENS = "token_embeddings"  # what a gate reads, in the names of sentence-transformers
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
    query: Tensor | None = None  # (H,) of the last layer, where another program left those of the others out

    def state(self, num_layers: int) -> dict[str, Tensor]:
        """The trained parameters under the pooling's names."""
        found = {
            stored.target + name.removeprefix(stored.prefix): value
            for stored in self.weights
            for name, value in read_state(stored.file).items()
            if name.startswith(stored.prefix)
        }
        if self.query is not None:
            where = "pooling.queries" if self.name == "projected" else "queries"
            found[where] = F.pad(self.query[None], (0, 0, num_layers - 1, 0))
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


def read_gate(folder: Path, pooling: FoundPooling) -> FoundPooling:
    """A gated mean: a mean behind a `Dense` of each token that `as_glu` gives the weight of."""
    dense, file = read_dense(folder, of=TOKENS), folder / QUERIES
    state = read_state(weights_of(folder))
    weight, bias = state.get("linear.weight"), state.get("linear.bias")
    gates = dense["activation"] == "GLU" and not dense["residual"]
    query = from_glu(weight, bias) if gates and weight is not None and bias is not None else None
    if query is None and gates and pooling.name == "mean":
        raise InputError(
            f"{folder} holds gates that another program has trained, each coordinate by itself, which "
            "embedtrain does not read: freeze them there (model[1].requires_grad_(False)) and train again, "
            "or begin with a model of pooling=own"
        )
    if query is None or pooling.name != "mean":
        raise InputError(
            f"{folder} is a layer of each token; embedtrain reads one only as the gate of a gated mean. "
            "Point to the Hugging Face model inside, or choose another model"
        )
    if file.is_file():
        queries = read_state(file).get("queries", query[:0])
        if len(queries) and torch.equal(queries[-1].to(query.dtype), query):
            return FoundPooling(GatedMean.name, {}, (Stored(file, "", ""),))
    LOG.warning(
        "%s is missing, or does not fit the gate beside it: layers below the last are pooled by the mean. "
        "Copy it from the folder that embedtrain saved",
        file,
    )
    return FoundPooling(GatedMean.name, {}, query=query.float())


def read_dense(folder: Path, of: str = _VECTOR) -> dict[str, Any]:
    """The arguments of a `Dense` module of vectors, or of tokens."""
    path = folder / "config.json"
    config = read_object(path)
    known = ["in_features", "out_features", "bias", "activation_function", "use_residual"]
    name_unread(path, config, [*known, "module_input_name", "module_output_name"])
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, of):
            raise InputError(
                f"{path} has {key} {config[key]!r}; embedtrain reads a Dense of {of} only there. "
                "Point to the Hugging Face model inside, or choose another model"
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


def weights_of(folder: Path) -> Path:
    """The file of weights of a module. Raises InputError where there is none."""
    found = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not found:
        raise InputError(f"{folder} has no weights ({_WEIGHTS[0]}): fetch or save the model again")
    return found[0]


def read_pooling(folder: Path) -> FoundPooling:
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
