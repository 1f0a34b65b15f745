"""Whether a backbone's tokens see those after them: how its config says so, and a probe of what it does.

A decoder becomes bidirectional by its config alone (`is_causal: false`), so that a saved folder is
bidirectional wherever it is loaded. Setting `is_causal` on the attention modules instead looks right on a
batch without padding and stays causal on one with padding. The probe catches that and every other silent
mismatch: it changes the last token of a short text and looks at the first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from embedtrain.model.backbone.families import BOTH_SIDES, Family, family_of
from embedtrain.types import InputError, Inputs

Attention = Literal["causal", "bidirectional"]
Forward = Callable[[Inputs, Sequence[int]], tuple[Tensor, ...]]

TEXT = 3  # real tokens of a probe, few enough for any local window
PADDING = 2


def attention_of(config: PreTrainedConfig, family: Family | None = None) -> Attention:
    """What a config asks for: encoders see both sides, decoders only what came before unless it says so."""
    if not (family or family_of(config)).decoder or getattr(config, "is_causal", None) is False:
        return "bidirectional"
    return "bidirectional" if getattr(config, "use_bidirectional_attention", None) else "causal"


def with_attention(config: PreTrainedConfig, attention: Attention | None) -> PreTrainedConfig:
    """A config that asks for `attention`; None keeps what it asks for now. The one given is not changed.

    Gemma 3 has a switch of its own, which also halves its windows (as many tokens, now on both sides). In
    Gemma and Gemma 2 the same switch is read by the attention modules but not by the mask, so a padded
    batch stays causal: they get `is_causal` as well, like all others.

    Raises:
        InputError: for an encoder that should be causal, or an unknown attention.
    """
    if attention not in (None, "causal", "bidirectional"):
        raise InputError(f"attention must be causal or bidirectional, got {attention!r}")
    found = attention_of(config)
    wanted = found if attention is None else attention
    if not family_of(config).decoder:
        if wanted == "causal":
            raise InputError(
                f"model type {config.model_type!r} is an encoder, all its tokens see each other, so "
                "attention cannot be causal: leave attention out, or take a decoder"
            )
        return config
    own = BOTH_SIDES.get(config.model_type)
    if found == wanted and (wanted == "causal" or own):
        return config
    if own:
        settings = config.to_dict() | {own: wanted == "bidirectional"}
        settings.pop("is_causal", None)
        switched: PreTrainedConfig = type(config).from_dict(settings)
        return switched
    changed = copy.deepcopy(config)
    changed.is_causal = wanted == "causal"
    if wanted == "causal" and getattr(config, "use_bidirectional_attention", None):
        changed.use_bidirectional_attention = False
    return changed


class Finding(NamedTuple):
    """What one text of the probe showed."""

    place: str  # which block and which padding
    moved: bool  # whether the first token felt the last one change


@torch.no_grad()
def probe(
    forward: Forward, *, num_layers: int, vocabulary: int, pad: int, device: torch.device
) -> Iterator[Finding]:
    """Whether token 0 moves with the last token, after the first and the last block, per kind of padding.

    Both texts run in batches of one shape, so that a token that sees no change is equal to the last bit.
    Two small forwards without padding and two with. The module must be in eval mode.

    Raises:
        InputError: when a state is not finite.
    """
    ids = [place * vocabulary // (TEXT + 2) for place in range(1, TEXT + 2)]
    layers = tuple(sorted({1, num_layers}))
    whole = {"without padding": 0}
    padded = {"padded on the right": 0, "padded on the left": PADDING}
    for width, starts in ((TEXT, whole), (TEXT + PADDING, padded)):
        before = _texts(ids[:TEXT], width, list(starts.values()), pad, device)
        after = _texts([*ids[: TEXT - 1], ids[TEXT]], width, list(starts.values()), pad, device)
        for layer, one, two in zip(layers, forward(before, layers), forward(after, layers), strict=True):
            for row, (kind, start) in enumerate(starts.items()):
                first, changed = one[row, start], two[row, start]
                if not (first.isfinite().all() and changed.isfinite().all()):
                    raise InputError(
                        f"the states after block {layer} are not finite in {str(first.dtype)[6:]}: load the "
                        "backbone with dtype=float32 or bfloat16; if it is float32, its weights are broken"
                    )
                if torch.equal(one[row, start + TEXT - 1], two[row, start + TEXT - 1]):
                    continue  # these two tokens are alike to the model: nothing to feel
                yield Finding(f"after block {layer}, {kind}", not torch.equal(first, changed))


def check_attention(findings: Iterator[Finding], wanted: Attention, name: str, implementation: str) -> None:
    """Raises InputError when a finding does not show the attention that is wanted."""
    for place, moved in findings:
        if moved == (wanted == "bidirectional"):
            continue
        felt = "moves the first" if moved else "leaves the first as it is"
        found = "bidirectional" if moved else "causal"
        other = "eager" if implementation != "eager" else "sdpa"
        raise InputError(
            f"{name} should have {wanted} attention, but it is {found} {place} (changing the last token "
            f"{felt}; attn_implementation is {implementation}). Load it with attn_implementation={other}, "
            f"or ask for attention={found} if that is what you want"
        )


def _texts(ids: list[int], width: int, starts: list[int], pad: int, device: torch.device) -> Inputs:
    """The same text once per start column, (M, width)."""
    rows = torch.full((len(starts), width), pad, dtype=torch.int64)
    mask = torch.zeros(len(starts), width, dtype=torch.bool)
    for row, start in enumerate(starts):
        rows[row, start : start + len(ids)] = torch.tensor(ids)
        mask[row, start : start + len(ids)] = True
    return Inputs(
        rows.to(device), mask.to(device), torch.zeros(len(starts), dtype=torch.int64, device=device)
    )
