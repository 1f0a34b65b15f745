"""Masks that are ready before a model asks for them: its own, without a question to the device."""

import pytest
import torch
from tiny_models import some_tokens, tiny_config, tiny_model

from embedtrain.model.backbone import backbone as module
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.families import FAMILIES
from embedtrain.model.backbone.packed_attention import MAKES_ITS_OWN, ready_mask
from embedtrain.model.inputs.micro_batches import with_spans

CASES = [
    (kind, attention)
    for kind, family in FAMILIES.items()
    for attention in (("causal", "bidirectional") if family.decoder else (None,))
]


@pytest.mark.parametrize(("kind", "attention"), CASES)
def test_a_ready_mask_is_the_one_that_the_model_makes(kind, attention, monkeypatch):
    size = {"vocab_size": 200, "num_hidden_layers": 2, "max_position_embeddings": 66}
    backbone = Backbone(tiny_model(tiny_config(kind, **size), attention))
    for lengths, left in (((20, 12, 3), False), ((20, 12, 3), True), ((9, 9), False)):
        tokens = with_spans(some_tokens(lengths, pad=backbone.model.config.pad_token_id or 0, left=left))
        ready = ready_mask(backbone.model.config, tokens, backbone.model.dtype)
        assert bool(ready) is (
            kind not in MAKES_ITS_OWN and not (FAMILIES[kind].decoder and min(lengths) == max(lengths))
        )
        with torch.no_grad():
            expected = backbone(tokens, (1, 2))
        placed = module.placed
        with monkeypatch.context() as patched, torch.no_grad():
            patched.setattr(module, "placed", lambda *given: placed(*given) | ready)  # noqa: B023
            found = backbone(tokens, (1, 2))
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one[tokens.mask], other[tokens.mask])


def test_padding_of_an_encoder_is_a_row_of_keys():
    """For all queries alike: no table of columns x columns a text, which sdpa would turn into numbers."""
    backbone = Backbone(tiny_model(tiny_config("bert")))
    tokens = with_spans(some_tokens((20, 12, 3)))
    assert ready_mask(backbone.model.config, tokens, backbone.model.dtype)["attention_mask"].shape == (
        3,
        1,
        1,
        20,
    )
