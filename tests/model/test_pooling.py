import pytest
import torch

from embedtrain.model.pooling import Cls, Mean, Pooling, named_pooling, pool_mask
from embedtrain.types import InputError

MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
HIDDEN = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


def test_mean_is_the_average_of_the_pooled_tokens():
    slow = torch.stack([HIDDEN[row][MASK[row]].mean(0) for row in range(3)])
    torch.testing.assert_close(Mean()([HIDDEN], MASK), slow)


def test_cls_is_the_first_pooled_token_on_either_side():
    assert torch.equal(Cls()([HIDDEN], MASK), torch.stack([HIDDEN[0, 0], HIDDEN[1, 2], HIDDEN[2, 0]]))


@pytest.mark.parametrize("pooling", [Mean(), Cls()])
def test_tokens_outside_the_mask_change_nothing(pooling):
    noisy = torch.where(MASK.unsqueeze(-1), HIDDEN, 1e4)
    assert torch.equal(pooling([HIDDEN], MASK), pooling([noisy], MASK))


@pytest.mark.parametrize("pooling", [Mean(), Cls()])
def test_only_the_last_state_counts(pooling):
    assert torch.equal(pooling([torch.zeros(3, 5, 4), HIDDEN], MASK), pooling([HIDDEN], MASK))
    assert isinstance(pooling, Pooling)
    assert not pooling.needs_all_layers


def test_the_mean_of_nothing_is_zero():
    assert torch.equal(Mean()([HIDDEN], torch.zeros_like(MASK)), torch.zeros(3, 4))


def test_sums_are_float32_and_float64_is_kept():
    # 2049 is not a bfloat16 number: a sum in bfloat16 would stop growing at 256 here.
    ones = torch.ones(1, 2049, 1, dtype=torch.bfloat16)
    every = torch.ones(1, 2049, dtype=torch.bool)
    pooled = Mean()([ones], every)
    assert pooled.dtype == torch.float32
    assert pooled.item() == 1.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Mean()([ones], every).dtype == torch.float32
    assert Cls()([ones], every).dtype == torch.float32
    assert Mean()([HIDDEN.double()], MASK).dtype == torch.float64
    assert Cls()([HIDDEN.double()], MASK).dtype == torch.float64


def test_the_pool_mask_leaves_prompt_tokens_out_on_either_side():
    expected = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(pool_mask(MASK, torch.tensor([2, 1, 0])), expected)


def test_poolings_by_name():
    assert isinstance(named_pooling("mean"), Mean)
    assert isinstance(named_pooling("cls"), Cls)
    with pytest.raises(InputError, match=r"pooling 'max' is not supported; supported are cls, mean"):
        named_pooling("max")
