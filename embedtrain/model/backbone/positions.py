"""Where the tokens of a text are, as each family wants it said: masks and position ids.

Letters: M texts, T tokens, H hidden width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedtrain.model.backbone.families import Family
from embedtrain.model.backbone.packed_attention import packed_inputs, ready_mask
from embedtrain.model.inputs.packing import Packed
from embedtrain.types import Inputs


def placed(model: PreTrainedModel, family: Family, tokens: Inputs | Packed) -> dict[str, Any]:
    """What a model is given beside the tokens of padded or packed rows."""
    if isinstance(tokens, Packed):  # ids begin anew with each text, and something keeps texts apart
        inputs = packed_inputs(model.config, tokens, model.dtype)
        return inputs | {"position_ids": tokens.positions + _first(model, family)}
    given: dict[str, Any] = {"attention_mask": tokens.mask.to(torch.int64)}
    if tokens.mask.device.type != "cpu" and family.takes is None:
        given |= ready_mask(model.config, tokens, model.dtype)
    if family.positions != "relative":
        given["position_ids"] = position_ids(tokens) + _first(model, family)
    return given


def position_ids(tokens: Inputs) -> Tensor:
    """(M, T) real tokens before each, so that padding may be on either side."""
    return (tokens.mask.cumsum(1) - 1).clamp(min=0)


def position_states(model: PreTrainedModel, family: Family, tokens: Inputs) -> Tensor | None:
    """(M, T, H) what the model adds for the places of tokens; None of one without such a table."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if (
        family.takes is not None
        or not isinstance(table, nn.Embedding)
        or table.embedding_dim != model.config.hidden_size
    ):
        return None
    states: Tensor = table(position_ids(tokens) + _first(model, family))
    return states


def max_positions(model: PreTrainedModel, family: Family) -> int | None:
    """Longest text in tokens that the position table allows; None when there is no limit."""
    table = getattr(model.config, "max_position_embeddings", None)
    return None if table is None else int(table) - _first(model, family)


def _first(model: PreTrainedModel, family: Family) -> int:
    if family.positions == "after_padding":
        table = getattr(model, "embeddings", None)
        return int(getattr(table, "padding_idx", model.config.pad_token_id)) + 1
    return 0
