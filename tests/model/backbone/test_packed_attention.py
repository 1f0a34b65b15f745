"""Texts that share a row have the states they have alone, in every family, and a probe sees where not."""

import itertools

import pytest
import torch
import transformers.integrations.flash_attention as flash_code
from fake_device import FAKE, fake_device
from slow_flash import slow_flash
from tiny_models import some_tokens, tiny_config, tiny_model
from torch import Tensor
from transformers import PreTrainedModel

from embedtrain.model.backbone import flash, packed_attention
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.families import FAMILIES
from embedtrain.model.inputs.packing import pack, rows_of, unpack
from embedtrain.types import InputError, Inputs

OWN_SIZES = {
    "modernbert": {"global_attn_every_n_layers": 2},
    "gemma3_text": {"sliding_window_pattern": 2},
    "mistral": {"sliding_window": 4},
    "qwen2": {"sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1},
}
EAGER_ONLY = ("mpnet", "gemma2")
UNPACKED = ("deberta", "deberta-v2")  # they read no mask of their own for each token
BIASED = ("t5", "mt5", "umt5")  # no flash attention adds their biases
LENGTHS = (5, 1, 17, 2, 9, 3, 3, 30)  # several windows long, and one longer than a row
WIDTH = 24
CASES = [
    (kind, attention, implementation)
    for kind, family in FAMILIES.items()
    if kind not in UNPACKED
    for attention in (("causal", "bidirectional") if family.decoder else (None,))
    for implementation in (("eager",) if kind in EAGER_ONLY else ("sdpa", "eager"))
]


def model_of(kind: str, attention: str | None, implementation: str = "sdpa") -> PreTrainedModel:
    size = {"vocab_size": 200, "num_hidden_layers": 3, "max_position_embeddings": 66}
    # Eager decoders take their softmax in float32, in which the least float64 of a mask is infinite.
    dtype = torch.float32 if implementation == "eager" else torch.float64
    config = tiny_config(kind, **size, **OWN_SIZES.get(kind, {}))
    return tiny_model(config, attention, attn_implementation=implementation, dtype=dtype)


def in_rows(tokens: Inputs, lengths=LENGTHS, width=WIDTH):
    rows = rows_of(lengths, width)
    order = [text for row in rows for text in row]
    assert max(map(len, rows)) > 1
    assert len(rows) > 1
    moved = tokens.rows(torch.tensor(order))
    return order, pack(moved, [len(row) for row in rows], [lengths[text] for text in order])


def largest_difference(backbone: Backbone, layers=(0, 1, 3)) -> float:
    """Between the states of texts packed and those of padded texts, relative to the largest state."""
    tokens = some_tokens(LENGTHS)
    order, packed = in_rows(tokens)
    with torch.no_grad():
        expected = backbone(tokens, layers)
        found, mask = unpack(packed, backbone(packed, layers), list(range(len(order))))
    return max(
        ((one[order][mask] - two[mask]).abs().max() / one.abs().max()).item()
        for one, two in zip(expected, found, strict=True)
    )


@pytest.mark.parametrize(("kind", "attention", "implementation"), CASES)
def test_a_packed_text_has_the_states_it_has_alone(kind, attention, implementation):
    backbone = Backbone(model_of(kind, attention, implementation))
    backbone.expect_packing()
    assert largest_difference(backbone) < (1e-5 if implementation == "eager" else 1e-12)


def test_nothing_of_a_row_feels_a_neighbour_or_padding():
    backbone = Backbone(model_of("gemma3_text", "bidirectional"))
    tokens = some_tokens(LENGTHS)
    order, packed = in_rows(tokens)
    changed = packed._replace(values=torch.where(packed.text == order.index(4), packed.values, 11))
    with torch.no_grad():
        before, after = backbone(packed, (3,))[0], backbone(changed, (3,))[0]
    own = packed.text == order.index(4)
    assert torch.equal(before[own], after[own])
    assert not torch.isclose(before[~own], after[~own]).all()


def leaky(monkeypatch):
    """Masks that a text of a row shares with its neighbours."""
    real = packed_attention.pack

    def merged(*given):
        packed = real(*given)
        return packed._replace(text=packed.text.clamp(max=0))

    monkeypatch.setattr(packed_attention, "pack", merged)


@pytest.mark.parametrize(("kind", "attention"), [("bert", None), ("llama", "causal"), ("modernbert", None)])
def test_a_mask_that_lets_neighbours_through_is_refused(kind, attention, monkeypatch):
    backbone = Backbone(model_of(kind, attention))
    backbone.expect_packing()
    leaky(monkeypatch)
    with pytest.raises(
        InputError,
        match=rf"model type '{kind}' with attn_implementation=sdpa cannot pack texts: the states of a text "
        r"of \d tokens differ from those it has alone by .* Set packing=false",
    ):
        backbone.expect_packing()


@pytest.mark.parametrize("kind", UNPACKED)
def test_a_family_that_cannot_pack_is_refused(kind):
    backbone = Backbone(model_of(kind, None, "eager"))
    with pytest.raises(InputError, match=rf"'{kind}' .* cannot pack texts: .* Set packing=false"):
        backbone.expect_packing()


def test_a_faint_influence_of_a_neighbour_is_refused(monkeypatch):
    backbone = Backbone(model_of("bert", None))
    real = backbone.model.forward

    def faint(**given):
        found = real(**given)
        if isinstance(given["attention_mask"], Tensor) and given["attention_mask"].ndim == 4:
            found.last_hidden_state += 1e-12 * found.last_hidden_state.mean()
        return found

    backbone.expect_packing()
    monkeypatch.setattr(backbone.model, "forward", faint)
    with pytest.raises(
        InputError, match=r"a text of 3 tokens changes with its neighbours. Set packing=false"
    ):
        backbone.expect_packing()


def test_position_ids_that_run_on_are_refused(monkeypatch):
    backbone = Backbone(model_of("roberta", None))
    running = torch.arange(9).expand(2, 9)
    first = "embedtrain.model.backbone.positions._first"
    monkeypatch.setattr(first, lambda *_: 0)  # the padding row, as if the family were not `after_padding`
    real = packed_attention.pack
    monkeypatch.setattr(packed_attention, "pack", lambda *given: real(*given)._replace(positions=running))
    with pytest.raises(InputError, match=r"'roberta' .* differ from those it has alone"):
        backbone.expect_packing()


def test_a_model_that_takes_no_mask_of_four_dimensions_is_refused(monkeypatch):
    backbone = Backbone(model_of("bert", None))
    real = backbone.model.forward

    def strict(**given):
        if given["attention_mask"].ndim != 2:
            raise ValueError("wrong shape for attention_mask")
        return real(**given)

    monkeypatch.setattr(backbone.model, "forward", strict)
    with pytest.raises(InputError, match=r"its forward fails with ValueError: wrong shape .* packing=false"):
        backbone.expect_packing()


def test_an_attention_that_is_told_nothing_of_texts_is_refused(monkeypatch):
    backbone = Backbone(model_of("bert", None))
    monkeypatch.setattr(backbone.model.config, "_attn_implementation_internal", "paged|sdpa")
    with pytest.raises(InputError, match=r"attn_implementation=paged\|sdpa: take one of sdpa, eager"):
        backbone.expect_packing()


@pytest.mark.parametrize(
    ("kind", "attention"),
    [case[:2] for case in CASES if (*case[:2], "sdpa") in CASES and case[0] not in BIASED][::2],
)
def test_flash_attention_is_told_where_texts_begin(kind, attention, monkeypatch):
    monkeypatch.setattr(flash_code, "_flash_attention_forward", slow_flash)
    model = model_of(kind, attention)
    monkeypatch.setattr(flash, "DEVICES", ("cpu",))
    model.config._attn_implementation_internal = "flash_attention_2"
    backbone = Backbone(model)
    backbone.expect_packing()
    calls = []
    model.register_forward_pre_hook(
        lambda _model, _args, given: calls.append("cu_seq_lens_q" in given), with_kwargs=True
    )
    assert largest_difference(backbone) < 1e-12
    assert [told for told, _ in itertools.groupby(calls)] == [False, True]


def test_a_device_is_not_asked_where_texts_begin():
    """Rows and borders for varlen kernels, and the way back, are made of the lengths that the host knows."""
    config = tiny_config("bert")
    config._attn_implementation_internal = "flash_attention_2"
    tokens = some_tokens(LENGTHS)
    with fake_device() as counts:
        order, packed = in_rows(tokens.to_device(FAKE))
        given = packed_attention.packed_inputs(config, packed, torch.bfloat16)
        states, mask = unpack(packed, [packed.values[..., None]], range(len(LENGTHS)))
        assert counts.waits == {}
        there = packed.text.cpu()
        back = states[0][..., 0].cpu()[mask.cpu()]
        borders = given["cu_seq_lens_q"].cpu()
    flat = there.flatten()
    begins = [0, *(place for place in range(1, len(flat)) if flat[place] != flat[place - 1])]
    assert borders.tolist() == [*begins, flat.numel()]
    assert given["max_length_q"] == int(borders.diff().max())
    assert torch.equal(back, torch.cat([tokens.values[text][tokens.mask[text]] for text in order]))
