"""How far weights moved, from changes that are made by hand."""

import pytest
import torch

from embedtrain.model.folder.export import load_encoder
from embedtrain.model.moved import adapters_moved, moved_blocks, moved_cuts
from embedtrain.types import SubModel

TEXTS = ["a cat runs", "the dog sleeps", "red bird"]


def by_name(blocks):
    return {block.block: block for block in blocks}


@torch.no_grad()
def add(parameter, value):
    parameter.add_(value)


def test_the_same_model_has_not_moved(tiny_bert):
    one, other = load_encoder(tiny_bert), load_encoder(tiny_bert)
    blocks = moved_blocks(one, other)
    numbers = sum(item.numel() for item in other.backbone.model.parameters())
    assert sum(block.parameters for block in blocks) == numbers
    assert [block.block for block in blocks][:2] == ["embeddings", "1"]
    assert {(block.moved, block.largest, block.changed) for block in blocks} == {(0, 0, 0)}
    assert adapters_moved(other) is None
    (cut,) = moved_cuts(one, other, TEXTS, [SubModel(1, 8)])
    assert (cut.cosine, cut.least) == pytest.approx((1, 1))


def test_a_block_says_how_far_it_moved_and_others_say_nothing(tiny_bert):
    one, other = load_encoder(tiny_bert), load_encoder(tiny_bert)
    changed = next(other.backbone.blocks[1].parameters())
    before = torch.cat([item.flatten() for item in one.backbone.blocks[1].parameters()]).double()
    add(changed, 0.5)
    blocks = by_name(moved_blocks(one, other))
    assert blocks["2"].largest == pytest.approx(0.5)
    assert blocks["2"].changed == changed.numel() / before.numel()
    assert blocks["2"].moved == pytest.approx(0.5 * changed.numel() ** 0.5 / before.norm().item())
    assert {name for name, block in blocks.items() if block.changed} == {"2"}
    shallow, deep = moved_cuts(one, other, TEXTS, [SubModel(1, 8), SubModel(2, 8)])
    assert shallow.cosine == pytest.approx(1)
    assert deep.least <= deep.cosine < 1


def test_a_learnt_pooling_is_a_group_of_its_own(tiny_bert):
    one, other = (load_encoder(tiny_bert, pooling="multi_layer") for _ in range(2))
    assert by_name(moved_blocks(one, other))["pooling"].changed > 0  # drawn twice


def test_a_pooling_that_began_at_zero_has_no_size_to_compare_with(tiny_bert):
    one, other = (load_encoder(tiny_bert, pooling="gated_mean") for _ in range(2))
    add(other.pooling.queries, 0.1)
    assert "pooling" not in by_name(moved_blocks(one, other))
    assert by_name(moved_blocks(other, one))["pooling"].moved == pytest.approx(1)


def test_adapters_count_as_merged(tiny_bert):
    torch.manual_seed(0)
    one, other = load_encoder(tiny_bert), load_encoder(tiny_bert, lora={"rank": 2})
    fresh = adapters_moved(other)
    assert fresh.layers > 0
    assert (fresh.moved, fresh.changed) == (0, 0)
    assert all(block.changed == 0 for block in moved_blocks(one, other))
    for name, item in other.backbone.model.named_parameters():
        if "lora_B" in name:
            add(item, 0.1)
    trained = adapters_moved(other)
    assert trained.moved > 0.001
    assert trained.changed > 0.9
    assert by_name(moved_blocks(one, other))["1"].changed > 0.5
    assert by_name(moved_blocks(one, other))["embeddings"].changed == 0


def test_an_update_below_the_rounding_of_16_bits_merges_to_nothing(tiny_bert):
    torch.manual_seed(0)
    other = load_encoder(tiny_bert, dtype="bfloat16", lora={"rank": 2})
    for name, item in other.backbone.model.named_parameters():
        if "lora_B" in name:
            add(item, 1e-7)
    found = adapters_moved(other)
    assert found.moved > 0
    assert found.changed < 0.01
