"""The Hugging Face model of a local folder or GGUF file, in the attention that is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel

from embedtrain.files.reading import reading, reason_of
from embedtrain.model.backbone.attention import Attention, with_attention
from embedtrain.model.backbone.families import FAMILIES, TEXT_PARTS
from embedtrain.model.backbone.gguf import Source, pretrained_source, quiet_unpacking
from embedtrain.model.backbone.limits import check_size
from embedtrain.model.backbone.own_code import CURE, auto_map, own_class
from embedtrain.types import InputError

# What provides an attention implementation that does not come with torch.
PACKAGES = {"flash_attention_2": "flash-attn --no-build-isolation"}


def load_model(
    path: str | Path,
    dtype: torch.dtype,
    attn_implementation: str | None,
    attention: Attention | None,
    *,
    trust: bool = False,
) -> PreTrainedModel:
    """The model at `path`, whose config asks for `attention`; of a model of several inputs, its text part.

    A GGUF file is unpacked: what comes out is a plain model in `dtype`. Code that the folder brings along
    (`auto_map`) runs only with `trust`.

    Raises:
        InputError: when the model type is not supported, cannot have that attention, the folder lacks some
            of its weights, or a package that it needs is missing.
    """
    source = pretrained_source(path)
    with reading(source.folder, "Fetch or save the model again"):
        check_size(Path(path))
        own = bool(auto_map(Path(path) / "config.json"))
        if own and not trust:
            _refuse_own_code(Path(path) / "config.json")
    own = own and trust
    try:
        config = read_config(source, trust=own)
        part = None if own else TEXT_PARTS.get(config.model_type)
        if own:
            pass  # its attention is found by trying it
        elif part is None:
            config = with_attention(config, attention)
        else:
            config.text_config = with_attention(config.text_config, attention)
        model, missing = _read(source, config, dtype, attn_implementation, own=own)
    except InputError:
        raise
    except Exception as error:  # a library reads what somebody handed over
        cure = _cure(error, attn_implementation)
        raise InputError(f"cannot load the Hugging Face model in {path}: {reason_of(error)}{cure}") from error
    if part is not None:
        model = model.get_submodule(part)
        missing = [key.removeprefix(f"{part}.") for key in missing if key.startswith(f"{part}.")]
    _check_missing(path, model, missing)
    return _plain(model)


def read_config(source: Source, *, trust: bool) -> PreTrainedConfig:
    """The config of a folder, of a class that lies there only with `trust`."""
    if trust and "AutoConfig" in (said := auto_map(source.folder / "config.json")):
        kind: type[PreTrainedConfig] = own_class("AutoConfig", said, source.folder)
        return kind.from_pretrained(source.folder)
    # False, so that transformers does not ask on the terminal.
    found: PreTrainedConfig = AutoConfig.from_pretrained(
        source.folder, **source.options, trust_remote_code=False
    )
    return found


def _refuse_own_code(file: Path) -> None:
    """Raises InputError for a model type that only code beside the weights defines."""
    kind = json.loads(file.read_text("utf-8")).get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING:
        raise InputError(
            f"{file} says model type {kind!r}, which is code of its own (auto_map). "
            f"{CURE}. Or choose one of a type that transformers has, {', '.join(sorted(FAMILIES))}"
        )


def _read(
    source: Source,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    attn_implementation: str | None,
    *,
    own: bool,
) -> tuple[Any, list[str]]:
    """The model and the names of the weights that its folder lacks."""
    options: dict[str, Any] = dict(source.options)
    unpacked = getattr(transformers, "GgufConfig", None)
    if options and unpacked is not None:  # newer releases would keep some weights packed
        options["quantization_config"] = unpacked(dequantize=True)
    # Weights that the folder lacks are drawn at random; the caller's generator must not feel it.
    with torch.random.fork_rng(devices=[]), quiet_unpacking():
        reads = own_class("AutoModel", config.auto_map, source.folder) if own else loader(config)
        model, info = reads.from_pretrained(
            source.folder,
            config=config,
            dtype=dtype,
            attn_implementation=attn_implementation,
            output_loading_info=True,
            **options,
        )
    return model, sorted(info["missing_keys"])


def loader(config: PreTrainedConfig) -> Any:  # noqa: ANN401 - a class of transformers
    """What loads a model of this config: of a pair of encoder and decoder the encoder alone."""
    return getattr(transformers, loader_name(config))


def loader_name(config: PreTrainedConfig) -> str:
    """The name of that class."""
    family = FAMILIES.get(config.model_type)
    return "AutoModel" if family is None or family.loader is None else family.loader


def _check_missing(path: str | Path, model: PreTrainedModel, missing: list[str]) -> None:
    if any(not key.startswith("pooler.") for key in missing):
        raise InputError(
            f"{path} lacks {len(missing)} weights of its {model.config.num_hidden_layers} blocks, among them "
            f"{missing[0]!r}: the file is incomplete or config.json describes another model. Fetch or "
            "save the folder again."
        )
    if missing:
        model.register_module("pooler", None)  # the folder has none: do not ship a random one


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """The model without what is left of a quantised file, so that it is saved and loaded as any other."""
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        if name in vars(owner):
            delattr(owner, name)
    return model


def _cure(error: Exception, attn_implementation: str | None) -> str:
    package = PACKAGES.get(attn_implementation or "")
    if package is None or not isinstance(error, ImportError):
        return ""
    return f" To install it: pip install {package}. Or leave attn_implementation out: sdpa needs nothing."


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """One of floating point, by its name. Raises InputError for anything else."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"dtype must be float32, bfloat16, float16 or float64, got {dtype!r}")
    return found
