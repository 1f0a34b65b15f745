"""What a model's folder says of itself in its files, read by hand: sentence-transformers, ours, or plain.

Names of modules and keys are those of sentence-transformers 2 to 6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from embedtrain.model.backbone.gguf import pretrained_source
from embedtrain.model.folder.contract import Contract, read_contract, read_object
from embedtrain.model.locate import has_weights
from embedtrain.model.pooling import Setting, sentence_transformers_keys
from embedtrain.types import InputError, Role

MODULES = "modules.json"
_MODE = "pooling_mode_"
STATE_POOLING = "embedtrain_pooling.StatePooling"  # the type of our own pooling module
# sentence-transformers looks for a document's prompt under these names, in this order.
PROMPT_NAMES: dict[Role, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}


class FoundPooling(NamedTuple):
    """How a folder pools."""

    name: str
    settings: dict[str, Setting]
    weights: Path | None  # trained parameters, where it has some


class Layout(NamedTuple):
    """What a folder says about the model in it; None where it is silent."""

    weights: Path  # the folder of the Hugging Face model, or a GGUF file
    tokenizer: Path  # the same, but for an adapter
    contract: Contract | None = None
    pooling: FoundPooling | None = None
    include_prompt: bool | None = None  # whether the tokens of a prompt are pooled
    max_length: int | None = None
    normalize: bool = True
    width: int | None = None  # leading coordinates that are kept
    lower_case: bool = False  # the tokenizer is to lower-case although its own file does not say so
    prompts: Mapping[str, str] = {}  # by role or by the name of a task
    adapter: Path | None = None  # folder of unmerged LoRA adapters for `weights`


def read_layout(path: Path, *, pooling_given: bool = False) -> Layout:
    """What a sentence-transformers, embedtrain or plain Hugging Face folder, or a GGUF file, says.

    With `pooling_given` the folder's own pooling is not read, so it may be one we do not have.

    Raises:
        InputError: for a module other than Transformer, Pooling, ours and Normalize, or missing weights.
    """
    if pretrained_source(path).options:
        return Layout(path, path)
    contract = read_contract(path)
    paths = _module_paths(path, truncated=contract is not None)
    weights = path / paths.get("Transformer", "")
    if not (weights / "config.json").is_file() or not has_weights(weights):
        lacks = "weights (model.safetensors)" if (weights / "config.json").is_file() else "config.json"
        raise InputError(f"{weights} has no {lacks}, so it is not a whole model: fetch or save it again")
    settings = _first_object(weights, "sentence_*bert_config.json", "sentence_*_config.json")
    length = settings.get("max_seq_length")
    width = (
        read_object(path / paths["Dense"] / "config.json").get("out_features") if "Dense" in paths else None
    )
    module = path / list(paths.values())[1] if paths else None
    return Layout(
        weights=weights,
        tokenizer=weights,
        contract=contract,
        pooling=None if pooling_given or module is None else _pooling(module),
        include_prompt=None if module is None else _include_prompt(module),
        max_length=length if isinstance(length, int) else None,
        normalize="Normalize" in paths or not paths,
        width=width,
        lower_case=bool(settings.get("do_lower_case", False)),
        prompts=_prompts(path),
    )


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
        plain = kind.startswith("sentence_transformers.") and kind.rpartition(".")[2] in known
        if not plain and kind != STATE_POOLING:
            raise InputError(
                f"{path} has a module {kind!r}, which embedtrain does not read: it takes Transformer, "
                "Pooling and Normalize. Point to the Hugging Face model inside, or choose another model"
            )
    names = [kind.rpartition(".")[2] for kind, _ in modules]
    if names[:2] not in (["Transformer", "Pooling"], ["Transformer", "StatePooling"]) or len(
        set(names)
    ) < len(names):
        raise InputError(f"{path} must list Transformer, Pooling and perhaps Normalize, got {names}")
    return dict(zip(names, [sub for _, sub in modules], strict=True))


def _pooling(module: Path) -> FoundPooling:
    """The pooling of the second module's folder."""
    path = module / "config.json"
    if not path.is_file():
        raise InputError(f"{path} is missing, so the pooling is unknown: fetch the model again")
    config = read_object(path)
    if "settings" not in config:
        mode = _mode(path, config)
        if mode == "weighted_mean" and not config.get("include_prompt", True):
            raise InputError(
                f"{path} leaves prompts out of a weighted mean but counts their tokens in its weights, which "
                "embedtrain does not: pass pooling=... and include_prompt=... to choose another way"
            )
        return FoundPooling(mode, {}, None)
    try:
        name, settings = str(config["pooling"]), dict(config["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not say how to pool ({error}): save the model again") from error
    weights = module / "model.safetensors"
    return FoundPooling(name, settings, weights if weights.is_file() else None)


def _include_prompt(module: Path) -> bool:
    path = module / "config.json"
    return bool(read_object(path).get("include_prompt", True)) if path.is_file() else True


def _mode(path: Path, config: dict[str, Any]) -> str:
    """The pooling of a `Pooling` module, in the keys of version 6 or those before."""
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [_as_mode(key) for key, on in config.items() if key.startswith(_MODE) and on] or ["mean"]
    names = [modes] if isinstance(modes, str) else list(modes) if isinstance(modes, list) else [str(modes)]
    ours = {_as_mode(key): name for name, key in sentence_transformers_keys().items()}
    if len(names) != 1 or names[0] not in ours:
        raise InputError(
            f"{path} asks for pooling {' + '.join(map(str, names))}, which embedtrain does not have; it has "
            f"{', '.join(ours)}. Pass another as pooling=... to replace it"
        )
    return ours[names[0]]


def _as_mode(key: str) -> str:
    """What version 6 calls a key of those before: "mean" of "pooling_mode_mean_tokens"."""
    return key.removeprefix(_MODE).removesuffix("_tokens").removesuffix("_token")


def _prompts(folder: Path) -> dict[str, str]:
    """Prompts that are not empty, those of the roles under the names of the roles."""
    found = _first_object(folder, "config_sentence_transformers.json").get("prompts")
    said = {str(key): str(value) for key, value in found.items() if value} if isinstance(found, dict) else {}
    for role, names in PROMPT_NAMES.items():
        first = next((name for name in names if name in said), None)
        if first is not None and first != role:
            said[role] = said.pop(first)
    return said


def _first_object(folder: Path, *patterns: str) -> dict[str, Any]:
    """The first JSON object whose file name matches, in the order of the patterns; empty without one."""
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            return read_object(path)
    return {}
