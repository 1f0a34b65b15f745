"""What an encoder would write of itself: its contract, and a name for its weights and settings."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from embedtrain.model.backbone.merging import merged_adapters
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.contract import (
    Base,
    Contract,
    deciding,
    package_versions,
    read_object,
    special_tokens,
    tensors_hash,
    text_hash,
    tokenizer_hash,
)
from embedtrain.types import SubModel

# What older tokenizer files say of one call, and other libraries take for the model's own.
LEFT_OVER = (
    *("max_length", "stride", "truncation_strategy", "pad_to_multiple_of"),
    *("pad_token_type_id", "truncation", "padding"),
)


def contract_of(
    encoder: Encoder, sub: SubModel | None = None, *, normalize: bool | None = None, base: Base | None = None
) -> Contract:
    """The contract of an encoder, or of one sub-model of it.

    Args:
        encoder: whose settings they are.
        sub: the whole encoder when none.
        normalize: whether vectors have length one; as the encoder says when none.
        base: the model that an adapter is for.
    """
    sub = SubModel(encoder.num_layers, encoder.width) if sub is None else sub
    process, rotation = encoder.process, encoder.rotation
    return Contract(
        pooling=encoder.pooling.name,
        pooling_settings=encoder.pooling.settings(),
        rotation=() if rotation is None else tuple(each for each in rotation.layers if each <= sub.layer),
        pool_prompt=process.include_prompt,
        prompts={name: prompt for name, prompt in process.prompts.items() if prompt},
        default_prompt=process.default_prompt if process.prompts.get(process.default_prompt or "") else None,
        attention=encoder.backbone.attention,
        special_tokens=special_tokens(process.tokenizer),
        padding_side=shipped_side(encoder),
        max_length=encoder.max_length,
        normalize=encoder.normalize if normalize is None else normalize,
        num_layers=sub.layer,
        width=sub.dim,
        dtype=str(next(encoder.backbone.parameters()).dtype).removeprefix("torch."),
        tokenizer_hash=tokenizer_hash(process.tokenizer),
        code=encoder.backbone.code,
        trained=tuple(item for item in encoder.trained if item.layer <= sub.layer and item.dim <= sub.dim),
        source=encoder.source,
        base=base,
        versions=package_versions(),
    )


def shipped_side(encoder: Encoder) -> str:
    """The padding side that a saved folder asks for.

    Right for a backbone that counts positions from the first column: other libraries number left padding
    too. The side changes no embedding here.
    """
    return encoder.process.padding_side if encoder.backbone.pads_anywhere else "right"


def shipped_tokenizer(encoder: Encoder) -> PreTrainedTokenizerBase:
    """A copy that says our maximum length and no other, and truncates and pads by itself as we do."""
    tokenizer = copy.deepcopy(encoder.process.tokenizer)
    for name in LEFT_OVER:
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.model_max_length = encoder.max_length
    tokenizer.padding_side = shipped_side(encoder)
    if tokenizer.is_fast:
        alone = tokenizer.backend_tokenizer  # what programs read that know tokenizer.json only
        alone.enable_truncation(encoder.max_length, direction=tokenizer.truncation_side)
        alone.enable_padding(
            direction=tokenizer.padding_side, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token
        )
    return tokenizer


def write_tokenizer(encoder: Encoder, folder: Path, inputs: Sequence[str] = ()) -> None:
    """Write the tokenizer's files, as transformers 4 and 5 read them.

    Args:
        encoder: whose tokenizer it is.
        folder: where.
        inputs: names of what the model takes of the tokenizer; when none, those that its `forward` has.
    """
    tokenizer = shipped_tokenizer(encoder)
    taken = signature(encoder.backbone.model.forward).parameters
    # Each class and version has its own default, and a model may refuse what it has no use for.
    names = list(inputs) or [name for name in tokenizer.model_input_names if name in taken]
    tokenizer.model_input_names = names
    tokenizer.init_kwargs["model_input_names"] = names  # is saved where it is there
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    said = read_object(file)
    own = {key: value for key, value in said.items() if key not in LEFT_OVER}
    if own.get("tokenizer_class") == "TokenizersBackend":
        own["tokenizer_class"] = "PreTrainedTokenizerFast"  # its name in transformers 4, known to 5
    if isinstance(own.get("extra_special_tokens"), list):
        own["additional_special_tokens"] = own.pop("extra_special_tokens")  # likewise
    if own != said:
        file.write_text(json.dumps(own, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def parameter_count(encoder: Encoder, layer: int) -> int:
    """Parameters of the model cut to `layer` blocks, its pooling's included; adapters count as merged."""
    backbone = encoder.backbone
    gone = {id(item) for block in backbone.blocks[layer:] for item in block.parameters()}
    kept = (item for name, item in backbone.model.named_parameters() if "lora_" not in name)
    own = sum(item.numel() for item in kept if id(item) not in gone)
    pooling = cast(nn.Module, encoder.pooling.cut(layer))
    return own + sum(item.numel() for item in pooling.parameters())


def plain_weights(encoder: Encoder) -> dict[str, Tensor]:
    """All tensors of an encoder by name, adapters merged: those that its folder has."""
    with merged_adapters(encoder.backbone.model):
        return {name: tensor.detach() for name, tensor in encoder.state_dict().items()}


def weights_hash(encoder: Encoder) -> str:
    """40 hexadecimal digits that name these weights and settings, the same in every process."""
    text = f"{tensors_hash(encoder.state_dict())} {deciding(contract_of(encoder))}"
    return text_hash(text)


def identity_of(encoder: Encoder) -> dict[str, str]:
    """Hashes of what a run begins with: weights, those that the seed draws included, and tokenizer."""
    found = {"starting weights": tensors_hash(encoder.state_dict())[:40]}
    if (code := getattr(encoder.backbone, "code", None)) is not None:
        found["code of the model"] = code
    tokenizer = getattr(encoder.process, "tokenizer", None)  # texts alone have one
    return found if tokenizer is None else {**found, "tokenizer": tokenizer_hash(tokenizer)}
