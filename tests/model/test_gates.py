"""Gates for a backbone's own mean: none for another pooling, no vector changed before training."""

import pytest
import torch

from embedtrain.model.folder.export import load_encoder
from embedtrain.model.gates import OwnGated
from embedtrain.model.pooling import GatedMean
from embedtrain.settings.component import Component
from embedtrain.settings.options import option
from embedtrain.types import InputError


def gated(encoder, **settings):
    Component.of(option("pooling", "own_gated") | settings, "pooling").build().apply(encoder)
    return encoder.pooling


def test_a_mean_gets_gates_that_change_no_vector(tiny_bert, sentences):
    encoder = load_encoder(tiny_bert)
    before = encoder.encode(list(sentences), [1, 4], "query")
    pooling = gated(encoder, lr=0.02)
    assert isinstance(pooling, GatedMean)
    assert (pooling.lr, pooling.queries.shape) == (0.02, (4, 32))
    after = encoder.encode(list(sentences), [1, 4], "query")
    torch.testing.assert_close(after.values, before.values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["cls", "eos", "weighted_mean", "latent_attention"])
def test_another_pooling_stays(tiny_bert, name):
    encoder = load_encoder(tiny_bert, pooling=name)
    before = encoder.pooling
    assert gated(encoder) is before


def test_trained_gates_stay_and_learn_at_the_rate_that_is_asked_for(tiny_bert):
    encoder = load_encoder(tiny_bert, pooling="gated_mean")
    torch.nn.init.normal_(encoder.pooling.queries)
    before = encoder.pooling
    assert gated(encoder, lr=0.5) is before
    assert before.lr == 0.5


def test_a_rate_that_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"pooling: lr must be above 0, got 0"):
        Component.of(option("pooling", "own_gated") | {"lr": 0}, "pooling").build()
    with pytest.raises(InputError, match="above 0"):
        OwnGated(lr=-1)
