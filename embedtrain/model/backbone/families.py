"""Where each Hugging Face model type keeps its blocks, and how its config is made shorter.

A model type belongs here when its state after block l is the output of block l (plus the final norm), so
that a model built from blocks 1..l computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedConfig

from embedtrain.types import InputError


class Family(NamedTuple):
    """Where one Hugging Face model type keeps what we need."""

    blocks: str  # path of the ModuleList of transformer blocks
    final_norm: str | None  # path of the norm after the last block; None for post-norm models
    positions: Literal["from_zero", "after_padding", "relative"]  # what its position ids look like
    decoder: bool = False  # trained to see only the tokens before each token
    loader: str | None = None  # class of transformers that has the encoder alone; AutoModel when none
    between: bool = False  # the model changes a state between two blocks
    shared: bool = False  # one block runs `num_hidden_layers` times
    takes: frozenset[str] | None = None  # arguments of a model whose code is its own; None of all others

    def accepted(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Those of the arguments that the model takes."""
        return given if self.takes is None else {key: given[key] for key in given if key in self.takes}


def _decoder() -> Family:
    return Family("layers", "norm", "from_zero", decoder=True)


def _t5(loader: str) -> Family:
    return Family("encoder.block", "encoder.final_layer_norm", "relative", loader=loader)


FAMILIES: dict[str, Family] = {
    # Its blocks are one, run many times: a cut is faster, and no smaller.
    "albert": Family("encoder.albert_layer_groups", None, "from_zero", shared=True),
    "bert": Family("encoder.layer", None, "from_zero"),
    "camembert": Family("encoder.layer", None, "after_padding"),
    "data2vec-text": Family("encoder.layer", None, "after_padding"),
    "deberta": Family("encoder.layer", None, "from_zero"),
    # The largest have a convolution behind their first block.
    "deberta-v2": Family("encoder.layer", None, "from_zero", between=True),
    "distilbert": Family("transformer.layer", None, "from_zero"),
    "electra": Family("encoder.layer", None, "from_zero"),
    "ernie": Family("encoder.layer", None, "from_zero"),
    "eurobert": Family("layers", "norm", "relative"),
    "gemma": _decoder(),
    "gemma2": _decoder(),
    "gemma3_text": _decoder(),
    "gpt2": Family("h", "ln_f", "from_zero", decoder=True),
    "llama": _decoder(),  # SmolLM2 too
    "mistral": _decoder(),
    "modernbert": Family("layers", "final_norm", "relative"),
    "mpnet": Family("encoder.layer", None, "after_padding"),
    "mt5": _t5("MT5EncoderModel"),
    "nomic_bert": Family("layers", None, "relative"),
    "phi3": _decoder(),
    "qwen2": _decoder(),
    "qwen3": _decoder(),
    "roberta": Family("encoder.layer", None, "after_padding"),
    "roberta-prelayernorm": Family("encoder.layer", "LayerNorm", "after_padding"),
    "t5": _t5("T5EncoderModel"),
    "umt5": _t5("UMT5EncoderModel"),
    "xlm-roberta": Family("encoder.layer", None, "after_padding"),
    "xlm-roberta-xl": Family("encoder.layer", "encoder.LayerNorm", "after_padding"),
}

# Models of several inputs: where their text model is. Its config is `text_config`.
TEXT_PARTS = {"gemma3": "language_model"}

# Models with a setting of their own for attention to both sides; others have `is_causal`.
BOTH_SIDES = {"gemma3_text": "use_bidirectional_attention"}

PER_BLOCK_SETTINGS = ("layer_types", "mlp_layer_types")  # config lists with one entry per block


def shorten(config: PreTrainedConfig, layer: int) -> None:
    """Make a config describe blocks 1..layer of its model."""
    for name in PER_BLOCK_SETTINGS:
        setting = getattr(config, name, None)
        if setting is not None:
            setattr(config, name, list(setting)[:layer])
    config.num_hidden_layers = layer


def family_of(config: PreTrainedConfig) -> Family:
    """The table row of a config. Raises InputError for a type we do not know."""
    if config.model_type not in FAMILIES:
        raise InputError(
            f"model type {config.model_type!r} is not supported; supported are "
            f"{', '.join(sorted([*FAMILIES, *TEXT_PARTS]))}"
        )
    family = FAMILIES[config.model_type]
    groups = getattr(config, "num_hidden_groups", 1), getattr(config, "inner_group_num", 1)
    if family.shared and groups != (1, 1):
        raise InputError(
            f"this {config.model_type} has {groups[0]} groups of {groups[1]} blocks (num_hidden_groups, "
            "inner_group_num), of which no cut can be made: take one whose blocks are all one, as ALBERT's "
            "published models"
        )
    if not family.decoder and getattr(config, "is_decoder", False):
        raise InputError(
            f"this {config.model_type} is configured as a decoder (is_decoder: true in config.json), so its "
            "tokens see only those before them; set it to false, or take an encoder"
        )
    return family
