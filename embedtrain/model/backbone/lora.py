"""LoRA (Hu et al. 2021, arXiv 2106.09685) through peft: small trainable matrices beside frozen weights.

The adapters are put into the backbone's own model, so the paths of its blocks stay as they were. What is
saved or cut has them merged; the live weights are never merged and unmerged, which would round them.
"""

from __future__ import annotations

import copy
import difflib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embedtrain.files.reading import reading
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.merging import adapted_layers
from embedtrain.types import InputError

if TYPE_CHECKING:
    from peft import PeftConfig

ADAPTER = "default"  # peft's name for the only adapter
PREFIX = "base_model.model."  # in front of every name in peft's files
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def add_lora(
    backbone: Backbone,
    *,
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
    targets: str | None = None,
    rslora: bool = False,
    dora: bool = False,
) -> None:
    r"""Put LoRA adapters into a backbone, in place; only they are trainable afterwards.

    The output is unchanged until they are trained (B starts at zero; A is drawn from torch's generator).
    Adapters of 16-bit weights are float32: an update of 1e-4 of a weight is lost in bfloat16.

    Args:
        backbone: without adapters.
        rank: r, inner width of the adapters.
        alpha: the update is scaled by alpha / rank, with `rslora` by alpha / sqrt(rank) (arXiv 2312.03732).
        dropout: on the adapters' input, in training.
        targets: regular expression searched in the names of the linear layers inside the blocks, e.g.
            `q_proj|v_proj` or `layers\.[0-9]\.`; None takes all of them.
        rslora: see alpha.
        dora: train the length of each weight row apart from its direction (arXiv 2402.09353).

    Raises:
        InputError: when a setting is out of range, `targets` matches nothing, the backbone has adapters
            already, or peft is not installed.
    """
    _need_peft()
    from peft import LoraConfig

    if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
        raise InputError(
            "lora needs rank >= 1, alpha > 0 and dropout in [0, 1), got "
            f"rank={rank}, alpha={alpha}, dropout={dropout}"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=cast(int, alpha),  # peft's annotation; it multiplies by any number
        lora_dropout=dropout,
        target_modules=_pattern(backbone, _targets(backbone, targets)),
        use_rslora=rslora,
        use_dora=dora,
        bias="none",
    )
    _inject(backbone, config)


def has_lora(backbone: Backbone) -> bool:
    """Whether a backbone has adapters."""
    return next(adapted_layers(backbone.model), None) is not None


def adapter_state(backbone: Backbone) -> dict[str, Tensor]:
    """The adapters' weights under the names of peft's files; empty without adapters."""
    return {
        PREFIX + name.replace(f".{ADAPTER}", ""): value.detach()
        for name, value in backbone.model.named_parameters()
        if "lora_" in name
    }


def save_adapter(backbone: Backbone, folder: str | Path, base: str) -> None:
    """Write the unmerged adapters in peft's own format, adapter_config.json and adapter_model.safetensors.

    Args:
        backbone: with adapters.
        folder: made if needed.
        base: folder or hub name of the model that the adapters belong to, written beside them.

    Raises:
        InputError: when the backbone has no adapters.
    """
    if not has_lora(backbone):
        raise InputError("the backbone has no LoRA adapters to save: give it some with lora=...")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.copy(cast(Any, backbone.model).peft_config[ADAPTER])
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.task_type = "FEATURE_EXTRACTION"  # without it loaders guess a language model, and causal attention
    config.save_pretrained(str(folder))
    state = {name: value.cpu().contiguous() for name, value in adapter_state(backbone).items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def load_adapter(backbone: Backbone, folder: str | Path) -> None:
    """Put the adapters of a peft folder into a backbone, in place, trainable as after `add_lora`.

    Raises:
        InputError: when the folder is not one of LoRA adapters for this backbone, or peft is not installed.
    """
    _need_peft()
    from peft import LoraConfig, PeftConfig

    folder = Path(folder)
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} is not a folder of LoRA adapters: it needs {CONFIG} and {WEIGHTS}")
    with reading(folder, "Save the adapter again"):
        config = PeftConfig.from_pretrained(str(folder))
        state = load_file(folder / WEIGHTS)
    if not isinstance(config, LoraConfig):
        raise InputError(f"{folder} holds adapters of type {config.peft_type}, embedtrain reads LoRA")
    config.inference_mode = False
    try:
        _inject(backbone, config)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"the adapters in {folder} do not fit this backbone: {error}") from error
    load_adapter_state(backbone, state, str(folder))


@torch.no_grad()
def load_adapter_state(backbone: Backbone, state: Mapping[str, Tensor], place: str = "the state") -> None:
    """Copy what `adapter_state` gave into the adapters of a backbone.

    Raises:
        InputError: when names or shapes differ.
    """
    own = adapter_state(backbone)
    strange = sorted(own.keys() ^ state.keys()) or [
        name for name in own if own[name].shape != state[name].shape
    ]
    if strange:
        raise InputError(
            f"the adapters in {place} do not fit this backbone: {len(strange)} weights differ, among them "
            f"{strange[0]!r}. Take the model that they were trained on, with the same lora settings"
        )
    for name, value in own.items():
        value.copy_(state[name])


def _inject(backbone: Backbone, config: PeftConfig) -> None:
    from peft import inject_adapter_in_model

    if has_lora(backbone):
        raise InputError("the backbone has LoRA adapters already: merge them (save and load) to add others")
    inject_adapter_in_model(config, backbone.model, ADAPTER)
    for name, value in backbone.model.named_parameters():
        value.requires_grad_("lora_" in name)
        if "lora_" in name and value.dtype in (torch.float16, torch.bfloat16):
            value.data = value.data.float()


def _linear_layers(backbone: Backbone) -> dict[str, str]:
    """Full name and name within its block of every linear layer inside the blocks."""
    return {
        f"{backbone.block_path}.{number}.{name}": name
        for number, block in enumerate(backbone.blocks)
        for name, part in block.named_modules()
        if isinstance(part, nn.Linear)
    }


def _targets(backbone: Backbone, targets: str | None) -> list[str]:
    """Full names of the linear layers that `targets` finds."""
    there = _linear_layers(backbone)
    if targets is None:
        return list(there)
    try:
        found = [name for name in there if re.search(targets, name)]
    except re.error as error:
        raise InputError(f"lora targets {targets!r} is not a regular expression: {error}") from error
    if not found:
        names = sorted(set(there.values()), key=lambda name: -_likeness(name, targets))
        raise InputError(
            f"lora targets {targets!r} matches none of the linear layers in the blocks; they are "
            f"{', '.join(names)}, each inside {backbone.block_path}.0 to "
            f"{backbone.block_path}.{backbone.num_layers - 1}"
        )
    return found


def _likeness(name: str, targets: str) -> float:
    """How near a layer's name, or the end of it, comes to what was written."""
    words = re.findall(r"\w+", targets) or [targets]
    return max(
        difflib.SequenceMatcher(None, part, word).ratio()
        for part in (name, *name.split("."))
        for word in words
    )


def _pattern(backbone: Backbone, names: list[str]) -> str:
    """What peft matches whole names against, also where the model is part of a larger one."""
    there = _linear_layers(backbone)
    inner = sorted({there[name] for name in names})
    if len(names) == len(inner) * backbone.num_layers:  # the same layers in every block
        names = [f"{backbone.block_path}.N.{name}" for name in inner]
    escaped = "|".join(re.escape(name).replace(r"\.N\.", r"\.\d+\.") for name in names)
    return rf"(.*\.)?({escaped})"


def _need_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise InputError("LoRA needs the package peft: pip install 'embedtrain[llm]'")
