"""Masks of dropout on a CPU: their rate, expectation and seed; gradients pass where numbers do."""

import json

import pytest
import torch
from tiny_models import some_tokens, tiny_config, tiny_model
from torch import nn

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.dropout import Dropout, has_dropout, set_dropout, with_cheap_dropout
from embedtrain.model.backbone.families import FAMILIES
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import InputError


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_so_many_are_dropped_and_the_mean_stays(p):
    torch.manual_seed(1)
    values = torch.ones(401, 503, requires_grad=True)
    found = Dropout(p)(values)
    kept = found != 0
    assert kept.float().mean() == pytest.approx(1 - p, abs=0.005)
    assert found[kept].unique().tolist() == [pytest.approx(1 / (1 - p), rel=2e-3)]
    found.sum().backward()
    assert torch.equal(values.grad, found.detach())


def test_masks_are_of_the_seed_and_no_two_alike():
    def drawn(seed):
        torch.manual_seed(seed)
        return torch.stack([Dropout(0.5)(torch.ones(7, 13)) for _ in range(2)])

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    assert not torch.equal(*drawn(3))


def test_columns_are_independent():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(20_000, 8)) != 0).float() - 0.5
    cross = kept.T @ kept / len(kept)
    assert (cross - 0.25 * torch.eye(8)).abs().max() < 0.01


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_none_and_all(p):
    assert torch.equal(Dropout(p)(torch.ones(5)), torch.full((5,), 1.0 - p))
    assert torch.equal(Dropout(0.5).eval()(torch.ones(5)), torch.ones(5))


def test_a_backbone_draws_so_and_another_class_is_left_alone(tiny_bert):
    class Other(nn.Dropout):
        pass

    model = with_cheap_dropout(nn.Sequential(nn.Dropout(0.1), Other(0.1)))
    assert [type(part) for part in model] == [Dropout, Other]
    kinds = {type(part) for part in load_encoder(tiny_bert).modules() if isinstance(part, nn.Dropout)}
    assert kinds == {Dropout}


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_a_share_is_set_wherever_a_model_drops(kind):
    backbone = Backbone(tiny_model(tiny_config(kind)))
    tokens = some_tokens(pad=backbone.model.config.pad_token_id)

    def state():
        return backbone(tokens, (4,))[0]

    calm = state()
    set_dropout(backbone.model, 0)
    backbone.train()
    assert torch.equal(state(), calm)
    assert not has_dropout(backbone.model)
    set_dropout(backbone.model, 0.5)
    assert has_dropout(backbone.model)
    assert not torch.equal(state(), state())
    assert torch.equal(backbone.eval()(tokens, (4,))[0], calm)


def test_a_loaded_model_has_it_and_a_saved_one_keeps_its_config(tiny_bert, tmp_path):
    own, encoder = load_encoder(tiny_bert), load_encoder(tiny_bert, dropout=0)
    assert has_dropout(own.backbone.model)
    assert not has_dropout(encoder.backbone.model)
    configs = [
        json.loads((save_encoder(one, tmp_path / name) / "config.json").read_text("utf-8"))
        for one, name in ((own, "own"), (encoder, "none"))
    ]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("share", [-0.1, 1, True, "no", float("nan")])
def test_what_is_no_share_is_refused(tiny_bert, share):
    with pytest.raises(InputError, match=r"dropout must be a number in \[0, 1\)"):
        load_encoder(tiny_bert, dropout=share)


def test_a_model_that_drops_nothing_cannot_drop_more():
    set_dropout(nn.Linear(2, 2), 0)
    with pytest.raises(InputError, match="leave dropout out"):
        set_dropout(nn.Linear(2, 2), 0.1)
