"""Our poolings against arrays that the authors' own code computed (tests/golden/README.md)."""

import pytest
import torch
import torch.nn.functional as F
from golden import golden

from embedtrain.model.pooling import LastLayer, LastToken, LatentAttention, MultiLayer

NEAR = {torch.float64: {"rtol": 1e-9, "atol": 1e-11}, torch.float32: {"rtol": 2e-5, "atol": 0.0}}
# Tokens and gradients have values near zero, of which float32 keeps fewer digits.
NEAR_ZERO = {**NEAR, torch.float32: {"rtol": 2e-5, "atol": 2e-6}}
# Their names on the left. `norm` belongs to x: the queries in NV-Embed, the context in the other.
WEIGHTS = {
    "latents": "latents",
    "pos_emb.weight": "layer_table",
    "cross_attend_blocks.0.fn.to_q.weight": "block.query.weight",
    "cross_attend_blocks.0.fn.to_kv.weight": "block.key_value.weight",
    "cross_attend_blocks.0.fn.to_out.weight": "block.out.weight",
    "cross_attend_blocks.1.fn.net.0.weight": "block.feed_in.weight",
    "cross_attend_blocks.1.fn.net.0.bias": "block.feed_in.bias",
    "cross_attend_blocks.1.fn.net.2.weight": "block.feed_out.weight",
    "cross_attend_blocks.1.fn.net.2.bias": "block.feed_out.bias",
    "cross_attend_blocks.1.norm.weight": "block.norm_feed.weight",
    "cross_attend_blocks.1.norm.bias": "block.norm_feed.bias",
}
NORMS = ("cross_attend_blocks.0.norm", "cross_attend_blocks.0.norm_context")


def ours(name, pooling):
    """The key of the pooling's state dict for a weight of the reference."""
    module, _, kind = name.rpartition(".")
    if module in NORMS:
        tokens_query = isinstance(pooling, LatentAttention)
        queries = (module == NORMS[0]) is tokens_query
        return f"sets.shared.block.norm_{'queries' if queries else 'context'}.{kind}"
    return f"sets.shared.{WEIGHTS[name]}"


def with_prefix(arrays, prefix):
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def built(kind, config, weights, num_layers, dtype=torch.float64, **settings):
    pooling = kind(
        hidden_size=config["hidden"],
        num_layers=num_layers,
        latents=config["num_latents"],
        heads=config["heads"],
        head_width=config["dim_head"],
        **settings,
    ).to(dtype)
    pooling.load_state_dict({ours(key, pooling): value for key, value in weights.items()})
    return pooling


def check_gradients(pooling, expected, dtype):
    parameters = dict(pooling.named_parameters())
    assert {ours(key, pooling) for key in expected} == set(parameters)
    for key, value in expected.items():
        found = parameters[ours(key, pooling)].grad
        torch.testing.assert_close(found, value.to(dtype), **NEAR_ZERO[dtype])


@pytest.mark.parametrize("name", ["latent_attention", "latent_attention_wide_head"])
@pytest.mark.parametrize("dtype", NEAR)
def test_latent_attention_of_nv_embed(name, dtype):
    arrays, config = golden(name)
    pooling = built(LatentAttention, config, with_prefix(arrays, "w/"), 1, dtype)
    near = NEAR[dtype]
    hidden = arrays["hidden_states"].to(dtype).requires_grad_()
    raw = pooling([hidden], arrays["pool_mask"].bool(), 1)
    torch.testing.assert_close(raw, arrays["output_raw"].to(dtype), **near)
    vectors = F.normalize(raw, dim=-1)
    torch.testing.assert_close(vectors, arrays["output"].to(dtype), **near)
    torch.testing.assert_close(pooling.tokens(hidden, 1), arrays["tokens"].to(dtype), **NEAR_ZERO[dtype])
    full = F.normalize(pooling([hidden], arrays["attention_mask"].bool(), 1), dim=-1)
    torch.testing.assert_close(full, arrays["output_full_mask"].to(dtype), **near)
    (vectors * arrays["cotangent"]).sum().backward()
    check_gradients(pooling, with_prefix(arrays, "g/"), dtype)
    torch.testing.assert_close(hidden.grad, arrays["grad_hidden"].to(dtype), **NEAR_ZERO[dtype])


@pytest.mark.parametrize(
    ("name", "kind"), [("multilayer_pooling", MultiLayer), ("lastlayer_pooling", LastLayer)]
)
@pytest.mark.parametrize("dtype", NEAR)
def test_trainable_poolings_of_pooling_and_attention(name, kind, dtype):
    arrays, config = golden(name)
    states = config["N"]
    pooling = built(kind, config, with_prefix(arrays, "w/"), states, dtype)
    inputs = arrays["inputs"].to(dtype).requires_grad_()
    if kind is MultiLayer:  # their input is one vector per layer: a text of one token has just that
        hiddens, mask = inputs.unsqueeze(2).unbind(1), torch.ones(config["B"], 1, dtype=torch.bool)
    else:
        hiddens, mask = [inputs], torch.ones(config["B"], states, dtype=torch.bool)
    raw = pooling(hiddens, mask, states)
    near = NEAR[dtype]
    torch.testing.assert_close(raw, arrays["output_unnormalised"].to(dtype), **near)
    vectors = F.normalize(raw, dim=-1)
    torch.testing.assert_close(vectors, arrays["output"].to(dtype), **near)
    (vectors * arrays["cotangent"]).sum().backward()
    check_gradients(pooling, with_prefix(arrays, "g/"), dtype)
    torch.testing.assert_close(inputs.grad, arrays["grad_inputs"].to(dtype), **NEAR_ZERO[dtype])


@pytest.mark.parametrize("dtype", NEAR)
def test_the_five_designs_of_pooling_and_attention(dtype):
    arrays, config = golden("pooling_designs_1to5")
    layers = config["L"]
    hiddens = list(arrays["hidden_states"][1:].to(dtype))  # the first is the output of the embedding part
    mask = arrays["attention_mask"].bool()
    last, multi = with_prefix(arrays, "w_last/"), with_prefix(arrays, "w_multi/")
    designs = {
        1: LastToken(),
        2: built(LastLayer, config, last, layers, dtype, source="last_token"),
        3: built(MultiLayer, config, multi, layers, dtype, source="last_token"),
        4: built(LastLayer, config, last, layers, dtype, source="all_positions"),
        5: built(MultiLayer, config, multi, layers, dtype, source="mean"),
    }
    for number, pooling in designs.items():
        given = hiddens if pooling.needs_all_layers else hiddens[-1:]
        vectors = F.normalize(pooling(given, mask, layers), dim=-1)
        torch.testing.assert_close(vectors, arrays[f"embedding_model{number}"].to(dtype), **NEAR[dtype])


def test_our_design_4_leaves_padding_out():
    arrays, config = golden("pooling_designs_1to5")
    pooling = built(LastLayer, config, with_prefix(arrays, "w_last/"), config["L"])
    hidden, mask = arrays["hidden_states"][-1], arrays["attention_mask"].bool()
    found = F.normalize(pooling([hidden], mask, config["L"]), dim=-1)
    whole = mask.all(1)
    assert whole.any()
    assert not whole.all()
    expected = arrays["embedding_model4"]
    torch.testing.assert_close(found[whole], expected[whole], **NEAR[torch.float64])
    assert (found[~whole] - expected[~whole]).abs().amax(1).min() > 1e-3
