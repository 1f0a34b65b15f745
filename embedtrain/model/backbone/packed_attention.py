"""Attention inside each text of a packed row only: the masks, and a probe that they do what they should.

The masks are made by the functions of transformers that the models themselves call, and closed between texts:
so causal attention, the local windows of a model and the form that its attention implementation takes (bool
for sdpa, float for eager, blocks for flex_attention) are its own. The texts of a row are without gaps, so a
distance between columns is one between tokens. Models whose blocks differ take one mask for each kind of
block, all others one mask. Flash attention takes no mask: it is told where each text begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
    create_sliding_window_causal_mask,
)

from embedtrain.model.backbone.families import family_of
from embedtrain.model.inputs.packing import Packed, pack
from embedtrain.transfers import moved
from embedtrain.types import InputError, Inputs

PackedForward = Callable[[Inputs | Packed], Tensor]
Overlay = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (row, head, query column, key column) -> seen

DENSE = ("sdpa", "eager", "flex_attention")  # implementations that take a mask of columns x columns
# Model types whose code takes no mask that is ready: their attention reads it by position.
MAKES_ITS_OWN = ("deberta", "deberta-v2")
PROBED = (3, 2, 4)  # real tokens of the texts of the probe


def packed_inputs(config: PreTrainedConfig, packed: Packed, dtype: torch.dtype) -> dict[str, Any]:
    """What a model of this config is given so that the texts of a row do not see each other.

    Args:
        config: of the whole model.
        packed: the rows.
        dtype: of the model's states.

    Raises:
        InputError: for an attention implementation that takes neither a mask nor the borders of texts.
    """
    implementation = str(config._attn_implementation)
    if implementation.startswith("flash"):
        return _borders(packed)
    if implementation not in DENSE:
        raise InputError(
            f"texts cannot be packed with attn_implementation={implementation}: take one of "
            f"{', '.join(DENSE)} or flash_attention_2, or set packing=false"
        )
    return {"attention_mask": _by_kind(config, lambda kind: _mask(config, packed, dtype, kind))}


def ready_mask(config: PreTrainedConfig, tokens: Inputs, dtype: torch.dtype) -> dict[str, Any]:
    """The mask of padded texts, made as a model of this config makes it; nothing where it is to make its own.

    Before it makes one, transformers asks the device whether any token is padding, and waits for the answer.
    """
    masked = config._attn_implementation in ("sdpa", "eager")
    if not masked or config.model_type in MAKES_ITS_OWN or tokens.spans is None:
        return {}
    whole = not bool((tokens.spans[:, 2] < tokens.mask.shape[1]).any())  # no padding
    if whole and family_of(config).decoder:  # it then takes a kernel without a mask
        return {}

    by_key = config._attn_implementation == "sdpa" and not family_of(config).decoder

    def of_kind(kind: str) -> object:
        if kind == "full_attention" and by_key:
            # of the keys alone, for all queries: a table of columns x columns a text is never made
            return None if whole else tokens.mask[:, None, None, :]
        make, given, skip = _maker(config, kind)
        states = torch.empty((*tokens.mask.shape, 0), dtype=dtype, device=tokens.mask.device)
        return make(config, states, **(given | {"attention_mask": tokens.mask, skip: False}))

    return {"attention_mask": _by_kind(config, of_kind)}


def _by_kind(config: PreTrainedConfig, mask: Callable[[str], object]) -> object:
    """The masks of a model: of each kind of block where they differ, else one."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return {kind: mask(kind) for kind in dict.fromkeys(kinds)}
    local = getattr(config, "sliding_window", None) is not None
    return mask("sliding_attention" if local else "full_attention")


def check_packing(
    forward: PackedForward, vocabulary: int, device: torch.device, name: str, dtype: torch.dtype
) -> None:
    """Raises InputError when a text is not the same packed as alone, or feels its neighbours.

    Three texts alone and four times in two packed rows, in eval mode.

    Args:
        forward: tokens to the states (M, T, H) or (R, W, H) after the last block.
        vocabulary: number of token ids.
        device: where the model is.
        name: of the model and its attention, for the message.
        dtype: in which it computes.
    """
    refused = f"{name} cannot pack texts: "
    cure = ". Set packing=false, or try another attn_implementation"
    try:
        found = _differences(forward, vocabulary, device, torch.finfo(dtype).eps)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError) as error:
        raise InputError(f"{refused}its forward fails with {type(error).__name__}: {error}{cure}") from error
    for length, (difference, tolerance, felt) in zip(PROBED, found, strict=True):
        if not difference <= tolerance:
            raise InputError(
                f"{refused}the states of a text of {length} tokens differ from those it has alone by "
                f"{difference:.2g} of the largest{cure}"
            )
        if felt:
            raise InputError(f"{refused}a text of {length} tokens changes with its neighbours{cure}")


@torch.no_grad()
def _differences(
    forward: PackedForward, vocabulary: int, device: torch.device, rounding: float
) -> list[tuple[float, float, bool]]:
    """Per text: its relative difference, the one allowed, and whether other neighbours change it.

    The allowed difference is the root of the precision, as a sum over tokens is rounded elsewhere in a row;
    that of float32 at least, in which some models take their softmax.
    """
    count = sum(PROBED)
    ids = torch.arange(1, 2 * count + 1) * vocabulary // (2 * count + 1)
    texts, others = (list(torch.split(half, list(PROBED))) for half in ids.view(2, count))
    together = _packed_states(forward, texts, device)
    found = []
    for number, text in enumerate(texts):
        alone = forward(_tokens([text], device))[0]  # (T, H)
        scale = alone.abs().max().clamp(min=torch.finfo(alone.dtype).tiny)
        difference = float((together[number] - alone).abs().max() / scale)
        beside = _packed_states(forward, [*others[:number], text, *others[number + 1 :]], device)
        felt = not torch.equal(beside[number], together[number])
        precision = max(torch.finfo(alone.dtype).eps, torch.finfo(torch.float32).eps, rounding)
        found.append((difference, precision**0.5, felt))
    return found


def _packed_states(forward: PackedForward, texts: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The state of each text, all in the first of two rows; the second has padding at its end."""
    tokens = _tokens([*texts, texts[0]], device)
    lengths = [len(text) for text in texts]
    packed = pack(tokens, [len(texts), 1], [*lengths, lengths[0]])
    return list(torch.split(forward(packed)[0], lengths))


def _tokens(texts: Sequence[Tensor], device: torch.device) -> Inputs:
    ids = pad_sequence(list(texts), batch_first=True)
    lengths = torch.tensor([[len(text)] for text in texts])
    mask = torch.arange(ids.shape[1]) < lengths
    return Inputs(ids.to(device), mask.to(device), torch.zeros(len(texts), dtype=torch.int64).to(device))


def _mask(config: PreTrainedConfig, packed: Packed, dtype: torch.dtype, kind: str) -> object:
    """The mask of one kind of block, as the model would make it, closed between texts."""
    states = torch.empty((*packed.values.shape, 0), dtype=dtype, device=packed.values.device)
    make, given, skip = _maker(config, kind)
    if config._attn_implementation == "flex_attention":
        return make(config, states, and_mask_function=_within_texts(packed), **given)
    # The same condition on the whole mask takes a tenth of the time that an overlay takes.
    open_mask = make(config, states, **given, **{skip: False})  # (R, 1, W, W)
    assert isinstance(open_mask, Tensor)
    # Padding sees padding, so that no row of the mask is empty.
    of_one_text = packed.text.unsqueeze(2) == packed.text.unsqueeze(1)
    closed = torch.finfo(open_mask.dtype).min if open_mask.is_floating_point() else False
    return open_mask.masked_fill(~of_one_text.unsqueeze(1), closed)


def _maker(config: PreTrainedConfig, kind: str) -> tuple[Callable[..., object], dict[str, Any], str]:
    """What makes the mask of a kind of block, what it is given, and what lets it leave the mask out."""
    given: dict[str, Any] = {"attention_mask": None, "past_key_values": None}
    local = kind == "sliding_attention"
    make: Callable[..., object]
    if not family_of(config).decoder:
        make = create_bidirectional_sliding_window_mask if local else create_bidirectional_mask
        skip = "allow_is_bidirectional_skip"
    else:
        make = create_sliding_window_causal_mask if local else create_causal_mask
        skip = "allow_is_causal_skip"
        if getattr(config, "use_bidirectional_attention", None) and getattr(config, "is_causal", True):
            given["or_mask_function"] = _gemma_overlay(config.sliding_window if local else None)
    return make, given, skip


def _within_texts(packed: Packed) -> Overlay:
    def of_one_text(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return packed.text[row, query] == packed.text[row, key]

    return of_one_text


def _gemma_overlay(window: int | None) -> Overlay:
    """What Gemma 3 sees besides what came before, where it is bidirectional by its own switch."""

    def near(_row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = (query - key).abs()
        return distance >= 0 if window is None else distance < window

    return near


def _borders(packed: Packed) -> dict[str, Any]:
    """Where texts, and the padding of each row, begin and end among all columns, for varlen kernels.

    All of it is known on the host: the device is not asked.
    """
    lengths = torch.tensor(packed.lengths)
    every = torch.cat([packed.starts, packed.starts + lengths, torch.tensor([packed.text.numel()])])
    borders = torch.unique(every)  # ascending
    longest = int(borders.diff().max())
    there = moved(borders.to(torch.int32), packed.text.device)
    return {
        "attention_mask": None,
        "cu_seq_lens_q": there,
        "cu_seq_lens_k": there,
        "max_length_q": longest,
        "max_length_k": longest,
    }
