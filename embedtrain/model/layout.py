"""The files of a sentence-transformers folder around its Hugging Face model, read and written by hand.

A cut model truncates INSIDE: a `Dense` module whose weight is the first `dim` rows of the identity stands
between Pooling and Normalize. `truncate_dim` of sentence-transformers acts after the last module, so it
would leave vectors shorter than one; a `Dense` is a module of every version and needs no argument.

Module names and keys are those of sentence-transformers 2 to 5, which version 6 reads without a word.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from embedtrain.model.contract import Contract, read_contract, read_object
from embedtrain.model.locate import has_weights
from embedtrain.types import InputError

MODULES = "modules.json"
POOLING_KEYS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


class Layout(NamedTuple):
    """What a folder says about the model in it; None where it is silent."""

    weights: Path  # the folder of the Hugging Face model
    contract: Contract | None
    pooling: str | None
    max_length: int | None
    normalize: bool
    lower_case: bool  # the tokenizer is to lower-case although its own file does not say so
    prompts: bool  # texts are to get a prompt, which this version does not add


def read_layout(folder: Path, *, pooling_given: bool = False) -> Layout:
    """What a sentence-transformers, embedtrain or plain Hugging Face folder says.

    With `pooling_given` the folder's own pooling is not read, so it may be one we do not have.

    Raises:
        InputError: for a module other than Transformer, Pooling(mean or cls), Normalize, or missing weights.
    """
    contract = read_contract(folder)
    paths = _module_paths(folder, truncated=contract is not None)
    weights = folder / paths.get("Transformer", "")
    if not (weights / "config.json").is_file() or not has_weights(weights):
        lacks = "weights (model.safetensors)" if (weights / "config.json").is_file() else "config.json"
        raise InputError(f"{weights} has no {lacks}, so it is not a whole model: fetch or save it again")
    settings = _first_object(weights, "sentence_*bert_config.json", "sentence_*_config.json")
    length = settings.get("max_seq_length")
    prompts = _first_object(folder, "config_sentence_transformers.json").get("prompts")
    return Layout(
        weights=weights,
        contract=contract,
        pooling=None if pooling_given or not paths else _pooling_name(folder / paths["Pooling"]),
        max_length=length if isinstance(length, int) else None,
        normalize="Normalize" in paths or not paths,
        lower_case=bool(settings.get("do_lower_case", False)),
        prompts=isinstance(prompts, dict) and any(prompts.values()),
    )


def write_layout(folder: Path, contract: Contract, hidden_size: int) -> None:
    """Write the modules after the Transformer, and what sentence-transformers reads beside it.

    Args:
        folder: where the Hugging Face model and tokenizer are already.
        contract: of the model being written.
        hidden_size: width of the states; a Dense truncates them when the contract's width is smaller.

    Raises:
        InputError: for a pooling that sentence-transformers does not have.
    """
    if contract.pooling not in POOLING_KEYS:
        raise InputError(
            f"pooling {contract.pooling!r} is not one that sentence-transformers has "
            f"({', '.join(sorted(POOLING_KEYS))}), so this model cannot be saved as its folder"
        )
    types = ["Transformer", "Pooling"]
    types += ["Dense"] if contract.width < hidden_size else []
    types += ["Normalize"] if contract.normalize else []
    paths = ["", *(f"{position}_{name}" for position, name in enumerate(types[1:], start=1))]
    entries = [
        {"idx": position, "name": str(position), "path": path, "type": f"sentence_transformers.models.{name}"}
        for position, (path, name) in enumerate(zip(paths, types, strict=True))
    ]
    _write(folder / MODULES, entries)
    _write(
        folder / "sentence_bert_config.json",
        {"max_seq_length": contract.max_length, "do_lower_case": False},
    )
    _write(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {
                "sentence_transformers": version("sentence-transformers"),
                "transformers": version("transformers"),
                "pytorch": torch.__version__,
            },
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    modes = {key: name == contract.pooling for name, key in POOLING_KEYS.items()}
    _write(folder / paths[1] / "config.json", {"word_embedding_dimension": hidden_size, **modes})
    if "Dense" in types:
        _write_truncation(folder / paths[2], hidden_size, contract)


def _write_truncation(folder: Path, hidden_size: int, contract: Contract) -> None:
    config = {
        "in_features": hidden_size,
        "out_features": contract.width,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _write(folder / "config.json", config)
    weight = torch.eye(contract.width, hidden_size, dtype=getattr(torch, contract.dtype))  # (dim, H)
    save_file({"linear.weight": weight}, folder / "model.safetensors")


def _module_paths(folder: Path, *, truncated: bool) -> dict[str, str]:
    """Sub-folder of each module by its class name, in order; empty for a plain Hugging Face folder."""
    path = folder / MODULES
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        modules = [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a list of modules ({error}): fetch the model again") from error
    known = {"Transformer", "Pooling", "Normalize"} | ({"Dense"} if truncated else set())
    for kind, _ in modules:
        if not kind.startswith("sentence_transformers.") or kind.rpartition(".")[2] not in known:
            raise InputError(
                f"{path} has a module {kind!r}, which embedtrain does not read: it takes Transformer, "
                "Pooling (mean or cls) and Normalize. Point to the Hugging Face model inside, or choose "
                "another model"
            )
    names = [kind.rpartition(".")[2] for kind, _ in modules]
    if names[:2] != ["Transformer", "Pooling"] or len(set(names)) < len(names):
        raise InputError(f"{path} must list Transformer, Pooling and perhaps Normalize, got {names}")
    return dict(zip(names, [sub for _, sub in modules], strict=True))


def _pooling_name(module: Path) -> str:
    """The pooling of a `Pooling` module's folder, in the keys of version 6 or those before."""
    path = module / "config.json"
    if not path.is_file():
        raise InputError(f"{path} is missing, so the pooling is unknown: fetch the model again")
    config = read_object(path)
    modes = config.get("pooling_mode")
    if modes is None:
        prefix = "pooling_mode_"
        on = [key.removeprefix(prefix) for key, value in config.items() if key.startswith(prefix) and value]
        modes = [name.removesuffix("_tokens").removesuffix("_token") for name in on] or ["mean"]
    names = [modes] if isinstance(modes, str) else list(modes) if isinstance(modes, list) else [str(modes)]
    if len(names) != 1 or names[0] not in POOLING_KEYS:
        raise InputError(
            f"{path} asks for pooling {' + '.join(map(str, names))}, which embedtrain does not have; "
            f"it has {', '.join(sorted(POOLING_KEYS))}. Pass one of them as pooling=... to replace it"
        )
    return str(names[0])


def _first_object(folder: Path, *patterns: str) -> dict[str, Any]:
    """The first JSON object whose file name matches, in the order of the patterns; empty without one."""
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            return read_object(path)
    return {}


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
