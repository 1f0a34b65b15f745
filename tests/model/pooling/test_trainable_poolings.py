"""Poolings with parameters against slow versions, their sets of parameters, and ONNX."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from embedtrain.model.pooling import POOLINGS, LastLayer, LatentAttention, MultiLayer, named_pooling

LAYERS, WIDTH, TEXTS, LENGTH = 3, 8, 4, 5
SIZE = {"hidden_size": WIDTH, "num_layers": LAYERS}
TRAINABLE = ["latent_attention", "last_layer", "multi_layer"]


@pytest.fixture
def states():
    """(LAYERS, TEXTS, LENGTH, WIDTH) and a ragged mask."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]]).bool()
    return torch.randn(LAYERS, TEXTS, LENGTH, WIDTH, generator=generator, dtype=torch.float64), mask


def normed(vector, norm):
    centred = vector - vector.mean()
    scaled = centred / math.sqrt((centred**2).mean() + 1e-5)
    return scaled * norm.weight + norm.bias


def slow_block(block, query, context):
    """One query vector that attends to a list of context vectors, head by head."""
    asked = block.query.weight @ normed(query, block.norm_queries)
    pairs = [block.key_value.weight @ normed(vector, block.norm_context) for vector in context]
    inner, gathered = len(asked), []
    for head in range(block.heads):
        part = slice(head * block.head_width, (head + 1) * block.head_width)
        logits = [float(asked[part] @ pair[:inner][part]) / math.sqrt(block.head_width) for pair in pairs]
        exponents = [math.exp(logit) for logit in logits]
        gathered.append(
            sum(e / sum(exponents) * p[inner:][part] for e, p in zip(exponents, pairs, strict=True))
        )
    state = block.out.weight @ torch.cat(gathered) + query
    values, gates = (block.feed_in.weight @ normed(state, block.norm_feed) + block.feed_in.bias).chunk(2)
    gated = values * gates * (1 + torch.erf(gates / math.sqrt(2))) / 2
    return state + block.feed_out.weight @ gated + block.feed_out.bias


def slow_latent_attention(chosen, tokens):
    return sum(slow_block(chosen.block, token, chosen.latents) for token in tokens[-1]) / len(tokens[-1])


def slow_last_layer(chosen, tokens):
    found = [slow_block(chosen.block, latent, tokens[-1]) for latent in chosen.latents]
    return sum(found) / len(found)


def slow_multi_layer(chosen, tokens):
    layers = [states.mean(0) + chosen.layer_table[number] for number, states in enumerate(tokens)]
    found = [slow_block(chosen.block, latent, layers) for latent in chosen.latents]
    return sum(found) / len(found)


SLOW = {
    "latent_attention": slow_latent_attention,
    "last_layer": slow_last_layer,
    "multi_layer": slow_multi_layer,
}


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("layer", [1, LAYERS])
@pytest.mark.parametrize(
    "settings", [{}, {"heads": 2, "head_width": 3, "latents": 5}, {"shared": False}], ids=str
)
def test_equals_the_slow_version(name, layer, settings, states):
    hiddens, mask = states
    pooling = named_pooling(name, **SIZE, **settings).double()
    with torch.no_grad():
        for parameter in pooling.parameters():  # norms and biases too, which begin as ones and zeros
            parameter.add_(torch.randn_like(parameter) * 0.1)
        found = pooling(list(hiddens[:layer]), mask, layer)
        chosen = pooling.sets.of(layer)
        slow = [SLOW[name](chosen, hiddens[:layer, row, mask[row]]) for row in range(TEXTS)]
    torch.testing.assert_close(found, torch.stack(slow), rtol=1e-9, atol=1e-11)


def test_the_order_of_tokens_is_irrelevant_and_that_of_layers_is_not(states):
    hiddens, _ = states
    every = torch.ones(TEXTS, LENGTH, dtype=torch.bool)
    for name in TRAINABLE:
        pooling = named_pooling(name, **SIZE).double()
        plain = pooling(list(hiddens), every, LAYERS)
        torch.testing.assert_close(pooling(list(hiddens.flip(2)), every, LAYERS), plain)
    swapped = pooling([hiddens[1], hiddens[0], hiddens[2]], every, LAYERS)  # the last is multi_layer
    assert (swapped - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("width", "latents", "heads", "head_width"),
    [(32, 16, 8, 4), (384, 48, 8, 48), (576, 72, 8, 72), (4096, 512, 8, 512), (12, 16, 4, 3), (9, 16, 1, 9)],
)
def test_defaults_fit_the_width(width, latents, heads, head_width):
    with torch.device("meta"):
        for kind in (LatentAttention, LastLayer, MultiLayer):
            settings = kind(hidden_size=width, num_layers=2).settings()
            found = settings["latents"], settings["heads"], settings["head_width"]
            assert found == (latents, heads, head_width)


def test_the_papers_sizes_give_the_papers_counts_of_parameters():
    size = {"hidden_size": 4096, "num_layers": 32}
    with torch.device("meta"):
        nv_embed = LatentAttention(**size, latents=512, heads=8, head_width=4096)
        tang = MultiLayer(**size, latents=768, heads=32, head_width=2048)
    assert sum(p.numel() for p in nv_embed.parameters()) / 1e9 == pytest.approx(0.74, abs=0.005)
    assert sum(p.numel() for p in tang.parameters()) / 1e9 == pytest.approx(1.28, abs=0.005)


@pytest.mark.parametrize("kind", [LastLayer, MultiLayer])
def test_parameters_begin_as_in_the_sources(kind):
    pooling = kind(hidden_size=64, num_layers=4, latents=500, latent_scale=0.25)
    some = pooling.sets.of(4)
    assert some.latents.std().item() == pytest.approx(0.25, rel=0.05)
    if kind is MultiLayer:
        assert some.layer_table.std().item() == pytest.approx(1.0, rel=0.2)
        assert MultiLayer(hidden_size=8, num_layers=2, table_scale=0).sets.of(2).layer_table.abs().max() == 0
    linear = some.block.feed_in.weight  # U(-1/sqrt(H), 1/sqrt(H)), the default of nn.Linear
    assert linear.abs().max().item() == pytest.approx(1 / 8, rel=0.01)
    assert LatentAttention(hidden_size=64, num_layers=1).sets.of(1).latents.std().item() == pytest.approx(
        1, rel=0.1
    )


@pytest.mark.parametrize("name", TRAINABLE)
def test_one_set_for_all_layers_or_one_for_each(name, states):
    hiddens, mask = states
    shared, own = named_pooling(name, **SIZE), named_pooling(name, **SIZE, shared=False)
    assert {key.split(".")[1] for key in shared.state_dict()} == {"shared"}
    assert {key.split(".")[1] for key in own.state_dict()} == {"layer_1", "layer_2", "layer_3"}
    own.double()(list(hiddens[:2]), mask, 2).sum().backward()
    used = {key.split(".")[1] for key, value in own.named_parameters() if value.grad is not None}
    assert used == {"layer_2"}
    assert all(p.grad is not None for p in own.sets.of(2).parameters())


def test_a_table_of_its_own_has_the_rows_its_layer_uses():
    own = named_pooling("multi_layer", **SIZE, shared=False)
    assert [len(own.sets.of(layer).layer_table) for layer in (1, 2, 3)] == [1, 2, 3]
    assert len(named_pooling("multi_layer", **SIZE).sets.of(1).layer_table) == LAYERS


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("latent_attention", {}),
        ("last_layer", {}),
        ("last_layer", {"source": "last_token"}),
        ("last_layer", {"source": "all_positions"}),
        ("multi_layer", {}),
        ("multi_layer", {"source": "last_token"}),
    ],
)
def test_every_trained_parameter_gets_a_gradient_at_every_step(name, settings, states):
    """DDP fails on one that does not. With a single key the gradient is zero, but there."""
    hiddens, mask = states
    pooling = named_pooling(name, **SIZE, **settings, shared=False).double()
    trained = (1, 3)
    pooling.restrict(trained, varying=False)
    sum(pooling(list(hiddens[:layer]), mask, layer).sum() for layer in trained).backward()
    with_gradient = {key for key, value in pooling.named_parameters() if value.grad is not None}
    assert with_gradient == {key for key, value in pooling.named_parameters() if value.requires_grad}
    assert with_gradient
    assert all(not p.requires_grad for p in pooling.sets.of(2).parameters())
    assert not any(p.requires_grad for p in pooling.cut(2).sets.of(2).parameters())
    assert all(p.requires_grad for p in pooling.cut(2).sets.of(1).parameters())


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_plan_that_changes_its_layers_needs_shared_parameters(name):
    with pytest.raises(
        ValueError, match=r"shared=false gives each layer parameters of its own, .* shared=true"
    ):
        named_pooling(name, **SIZE, shared=False).restrict({1, 3}, varying=True)
    shared = named_pooling(name, **SIZE)
    shared.restrict({1, 3}, varying=True)
    assert all(p.requires_grad for p in shared.parameters())


class All(nn.Module):
    """Poolings as ONNX sees them: states (LAYERS, M, T, H) and a mask in, the vectors of each out."""

    def __init__(self, poolings: list[nn.Module]) -> None:
        super().__init__()
        self.poolings = nn.ModuleList(poolings)

    def forward(self, states: Tensor, mask: Tensor) -> list[Tensor]:
        return [pooling(list(states.unbind(0)), mask, LAYERS) for pooling in self.poolings]


@pytest.fixture(scope="module")
def onnx_session(tmp_path_factory):
    """All poolings in one file, since an export takes seconds, and the module they came from."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module = All([named_pooling(name, **SIZE) for name in POOLINGS]).eval()
    example = torch.zeros(LAYERS, TEXTS, LENGTH, WIDTH), torch.ones(TEXTS, LENGTH, dtype=torch.bool)
    texts, length = torch.export.Dim("texts"), torch.export.Dim("length")
    shapes = {"states": {1: texts, 2: length}, "mask": {0: texts, 1: length}}
    path = tmp_path_factory.mktemp("onnx") / "poolings.onnx"
    torch.onnx.export(module, example, dynamo=True, verbose=False, dynamic_shapes=shapes).save(path)
    return onnxruntime.InferenceSession(path), module


@pytest.mark.filterwarnings("ignore:# The axis name")
@pytest.mark.parametrize("name", POOLINGS)
def test_onnx_gives_the_same_vectors(name, onnx_session, states):
    session, module = onnx_session
    number = list(POOLINGS).index(name)
    hiddens, mask = states[0].float(), states[1]
    for rows, columns, keep in ((TEXTS, LENGTH, True), (1, 1, True), (3, 4, True), (2, LENGTH, False)):
        given = hiddens[:, :rows, :columns].contiguous(), mask[:rows, :columns].contiguous() & keep
        names = [item.name for item in session.get_inputs()]
        found = session.run(None, {key: item.numpy() for key, item in zip(names, given, strict=True)})[number]
        expected = module(*given)[number].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert keep is bool(np.abs(found).max() > 0)
