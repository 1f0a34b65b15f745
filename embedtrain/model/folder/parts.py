"""The parts of an encoder as a layout describes them: tokenizer, pooling, length, and what its files say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers.normalizers import Lowercase, Sequence
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from embedtrain.files.reading import reading
from embedtrain.model.backbone.attention import attention_of
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.gguf import pretrained_source
from embedtrain.model.backbone.loading import read_config
from embedtrain.model.backbone.own_code import CURE, auto_map
from embedtrain.model.folder.contract import AGAIN, Contract, special_tokens, tokenizer_hash
from embedtrain.model.folder.layout import TOKENIZER, Layout
from embedtrain.model.folder.module import FoundPooling
from embedtrain.model.pooling import Pooling, named_pooling, pooled_width
from embedtrain.model.rotation.rotation import FILE, Rotation
from embedtrain.types import InputError

LOG = logging.getLogger(__name__)

LONGEST_DEFAULT = 512  # tokens, where neither the folder nor the caller says

Given = Pooling | str | Callable[..., Pooling] | None  # a pooling as a caller may say it


def facts_of(layout: Layout, backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """What the files of a folder, other than its contract, say of the contract's fields but the width."""
    found: dict[str, object] = {
        "num_layers": backbone.num_layers,
        "special_tokens": special_tokens(tokenizer),
        "padding_side": tokenizer.padding_side,
        "tokenizer_hash": tokenizer_hash(tokenizer),
        "code": backbone.code,
    }
    if layout.pooling is not None or layout.rotation:
        found["rotation"] = tuple(layout.rotation)
    if layout.adapter is not None:
        return found  # its other fields are written in the contract alone
    config = read_config(pretrained_source(layout.weights), trust=layout.trusted)
    found |= {
        "attention": attention_of(config) if backbone.code is None else backbone.attention,
        "dtype": str(config.dtype).removeprefix("torch."),
        "max_length": longest_text(layout, backbone, tokenizer),
        "normalize": layout.normalize,
        "prompts": dict(layout.prompts),
        "default_prompt": layout.default_prompt,
        "pool_prompt": layout.include_prompt,
    }
    if layout.pooling is not None:
        found |= {"pooling": layout.pooling.name, "pooling_settings": layout.pooling.settings}
    return found


def stated_width(layout: Layout, own: Pooling, backbone: Backbone) -> dict[str, object]:
    """The width that a folder's files say, whose pooling is `own`; empty where another is given."""
    if layout.adapter is not None or (layout.pooling is None and layout.width is None):
        return {}
    return {"width": pooled_width(own, backbone.hidden_size) if layout.width is None else layout.width}


def kept_width(layout: Layout, own: Pooling, backbone: Backbone) -> int | None:
    """Leading coordinates that are kept; None for all, also where `truncate_dim` asks for more."""
    if layout.contract is not None or layout.width is None:
        return layout.width
    widest = pooled_width(own, backbone.hidden_size)
    return layout.width if layout.width < widest else None


def with_trained_layers(folder: Path, contract: Contract, layout: Layout) -> Contract:
    """The contract of a folder over which another program saved what it trained.

    The layer that truncates is then one like any other, and the contract is that of the folder's modules.
    """
    found = layout.pooling
    if found is None or found.name != "projected" or contract.pooling == found.name:
        return contract
    if (found.settings["pooling"], found.settings["settings"]) != (
        contract.pooling,
        contract.pooling_settings,
    ):
        return contract
    LOG.info(
        "%s: a layer behind the pooling was trained after embedtrain saved it; it is read as it is", folder
    )
    changed = contract._replace(pooling=found.name, pooling_settings=found.settings)
    return changed._replace(rotation=tuple(layout.rotation)) if (folder / FILE).is_file() else changed


def pooling_for(given: Given, found: FoundPooling | None, backbone: Backbone) -> Pooling:
    """The pooling that is given, else the folder's with its trained parameters, else the mean."""
    size = {"hidden_size": backbone.hidden_size, "num_layers": backbone.num_layers}
    if isinstance(given, str):
        return named_pooling(given, **size)
    if given is not None:
        if isinstance(given, nn.Module):
            return cast(Pooling, given)
        try:
            return cast(Callable[..., Pooling], given)(**size)
        except ValueError as error:
            raise error if isinstance(error, InputError) else InputError(f"pooling: {error}") from error
    if found is None:
        return named_pooling("mean", **size)
    settings: dict[str, Any] = {**found.settings, **size}
    with torch.random.fork_rng(devices=[]):  # what is drawn is overwritten
        pooling = named_pooling(found.name, **settings)
    assert isinstance(pooling, nn.Module)
    try:
        pooling.load_state_dict(found.state(backbone.num_layers), assign=True)
    except RuntimeError as error:
        files = ", ".join(str(stored.file) for stored in found.weights)
        raise InputError(f"{files} does not fit pooling {found.name!r}: {error}") from error
    return pooling


def rotation_of(layout: Layout) -> Rotation | None:
    """What turns the vectors of a folder's model, at the width that the folder has."""
    matrices = {layer: matrix[: layout.width] for layer, matrix in layout.rotation.items()}
    return Rotation(matrices) if matrices else None


def read_tokenizer(layout: Layout) -> PreTrainedTokenizerBase:
    """The folder's tokenizer. Raises InputError when it cannot be read."""
    source = pretrained_source(layout.tokenizer)
    ours = f"the tokenizer in {layout.tokenizer} is code of its own (auto_map)"
    own = bool(auto_map(layout.tokenizer / TOKENIZER)) and not layout.trusted
    try:
        with reading(f"the tokenizer in {layout.tokenizer}", AGAIN):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                source.folder, **source.options, trust_remote_code=layout.trusted
            )
    except InputError as error:
        if not own:
            raise
        raise InputError(f"{ours}. {CURE}") from error
    if own:
        LOG.warning("%s, which is not run: transformers reads its files instead. %s", ours, CURE)
    if layout.lower_case:
        backend = tokenizer.backend_tokenizer
        steps = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = Sequence([Lowercase(), *steps])
    return tokenizer


def longest_text(layout: Layout, backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> int:
    """The folder's own limit, else the tokenizer's, never more than the positions allow."""
    said = layout.max_length
    if said is None:
        # A tokenizer without a limit says 10^30.
        said = tokenizer.model_max_length if tokenizer.model_max_length < 10**6 else LONGEST_DEFAULT
    return said if backbone.max_positions is None else min(said, backbone.max_positions)


def source_of(path: str | Path) -> str:
    """A hub name as it is; .../ and the last two names of a local folder, which say little of the machine."""
    local = Path(path).expanduser()
    return "/".join(["...", *local.resolve().parts[-2:]]) if local.exists() else str(path)


def origin_of(layout: Layout, path: str | Path, base: str | Path | None) -> str:
    """What `load_encoder` would find the backbone's own weights by, from any working folder."""
    if layout.adapter is not None:
        path = layout.base if base is None else base
    local = Path(path).expanduser()
    return str(local.resolve()) if local.exists() else str(path)
