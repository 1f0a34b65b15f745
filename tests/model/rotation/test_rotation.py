"""Rotations of pooled vectors: orthogonal, the right gradient, numpy's axes, the same wherever they go."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shipped import assert_shipped
from torch import nn

from embedtrain.model.folder.adapter import save_adapter
from embedtrain.model.folder.contract import read_contract
from embedtrain.model.folder.describe import weights_hash
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.folder.graph import Graph
from embedtrain.model.rotation.rotation import FILE, Rotation, read_rotation
from embedtrain.model.rotation.starts import Fixed, Householder, Linear, axes, principal_axes, random_axes
from embedtrain.types import InputError, SubModel

EVERY = (1, 2, 3, 4)
CUTS = [SubModel(1, 8), SubModel(2, 32), SubModel(3, 16), SubModel(4, 24), SubModel(4, 32)]


def turned(layers=(1, 2, 4), width=32, taken=None, seed=0) -> Rotation:
    """Reflections in any direction behind random axes: no pair undoes itself any more."""
    own = {layer: random_axes(taken or width, layer)[:width].float() for layer in layers}
    rotation = Householder().rotation(layers, width, seed, Rotation(own))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        rotation.vectors.add_(torch.randn(rotation.vectors.shape, generator=generator))
    return rotation


@pytest.fixture
def encoder(tiny_bert):
    encoder = load_encoder(tiny_bert, pooling="mean", max_length=20)
    encoder.trained = (SubModel(1, 8), SubModel(4, 32))
    encoder.rotate(turned())
    return encoder


def off(matrix: torch.Tensor) -> float:
    return float((matrix.double() @ matrix.double().T - torch.eye(len(matrix))).abs().max())


def test_reflections_begin_as_the_identity_and_stay_orthogonal_in_training():
    torch.manual_seed(0)
    rotation = Householder(lr=0.1).rotation([2], 32, 0, None)
    vectors = torch.randn(64, 32)
    torch.testing.assert_close(rotation(vectors, 2), vectors, rtol=0, atol=1e-5)
    optimizer = torch.optim.AdamW(rotation.parameters(), lr=0.1, weight_decay=0.0)
    for _ in range(50):
        optimizer.zero_grad()
        (rotation(vectors * torch.arange(32), 2)[:, :4] ** 2).mean().neg().backward()
        optimizer.step()
    matrix = rotation.matrix(2)
    assert off(matrix) < 1e-6
    assert off(rotation(torch.eye(32), 2).detach()) < 1e-5
    assert (matrix - torch.eye(32)).abs().max() > 0.5


def test_the_gradient_is_that_of_an_explicit_matrix():
    torch.manual_seed(1)
    rotation = turned([3]).double()
    vectors = torch.randn(5, 32, dtype=torch.float64, requires_grad=True)
    target = torch.randn(5, 8, dtype=torch.float64)
    free = rotation.vectors.detach().clone().requires_grad_()
    explicit = rotation.base[0].double()
    for vector in reversed(free[0]):
        reflection = torch.eye(32).double() - 2 * torch.outer(vector, vector) / vector.dot(vector)
        explicit = reflection @ explicit
    ways = []
    for given, own in ((rotation(vectors, 3), rotation.vectors), (vectors @ explicit.T, free)):
        loss = ((given[:, :8] - target) ** 2).sum()
        ways.append((given.detach(), *torch.autograd.grad(loss, [vectors, own])))
    for one, other in zip(*ways, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rotation.matrix(3).double(), explicit.detach(), rtol=0, atol=1e-6)


def test_a_free_map_has_the_gradient_of_its_matrix_and_is_shipped_as_it_is(tiny_bert, tmp_path, sentences):
    rotation = Linear().rotation(EVERY, 32, 0, None)
    assert not rotation.is_started
    rotation.start({layer: random_axes(32, layer) for layer in EVERY[:-1]})
    assert torch.equal(rotation.matrix(4), torch.eye(32))
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    rotation(vectors, 2)[:, :8].sum().backward()
    expected = torch.zeros(4, 32, 32)
    expected[1, :8] = vectors.sum(0)
    torch.testing.assert_close(rotation.base.grad, expected)
    with torch.no_grad():
        rotation.base.add_(rotation.base.grad)
    assert off(rotation.matrix(2)) > 0.1
    encoder = load_encoder(tiny_bert, pooling="mean", max_length=20)
    encoder.rotate(rotation)
    for sub in (SubModel(2, 8), SubModel(4, 32)):
        assert_shipped(save_encoder(encoder, tmp_path / str(sub), sub), encoder, sentences, sub)


def test_principal_axes_are_those_of_numpy():
    drawn = np.random.default_rng(0)
    vectors = drawn.normal(size=(200, 6)) * [5, 3, 2, 1, 0.5, 0.1] + 1.0
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    _, sizes, right = np.linalg.svd(unit)
    found = principal_axes(torch.tensor(vectors)).numpy()
    assert np.allclose(np.abs((found * right).sum(1)), 1.0)
    assert np.allclose(((unit @ found.T) ** 2).sum(0), sizes**2)
    assert (found[np.arange(6), np.abs(found).argmax(1)] > 0).all()


def test_random_axes_are_orthogonal_and_those_of_the_seed():
    assert off(random_axes(32, 3)) < 1e-6
    assert torch.equal(random_axes(32, 3), random_axes(32, 3))
    assert not torch.equal(random_axes(32, 3), random_axes(32, 4))
    assert torch.equal(axes("identity", torch.empty(0, 4), 0), torch.eye(4))


def test_whole_vectors_keep_their_similarities_and_prefixes_do_not(encoder, tiny_bert, sentences):
    plain = load_encoder(tiny_bert, pooling="mean", max_length=20)
    for layer in EVERY:
        for dim, kept in ((32, True), (8, layer == 3)):
            mine, theirs = (
                each.encode(sentences, (layer,)).at(SubModel(layer, dim)) for each in (encoder, plain)
            )
            near = torch.allclose(mine @ mine.T, theirs @ theirs.T, rtol=0, atol=1e-5)
            assert near == kept, (layer, dim)


def test_a_map_that_begins_as_the_identity_changes_no_bit(tiny_bert, sentences):
    encoder = load_encoder(tiny_bert, pooling="mean")
    before = encoder.encode(sentences, EVERY).values
    encoder.rotate(Fixed().rotation([1, 4], 32, 0, None))
    assert torch.equal(encoder.encode(sentences, EVERY).values, before)


@pytest.mark.parametrize("sub", CUTS, ids=str)
def test_every_cut_is_shipped_and_comes_back(encoder, tmp_path, sentences, sub):
    save_encoder(encoder, tmp_path / "cut", sub)
    assert_shipped(tmp_path / "cut", encoder, sentences, sub)
    again = load_encoder(tmp_path / "cut")
    layers = range(1, sub.layer + 1)
    for layer in layers:
        here = SubModel(layer, sub.dim)
        expected = encoder.encode(sentences, (layer,)).at(here)
        torch.testing.assert_close(again.encode(sentences, (layer,)).at(here), expected, rtol=0, atol=1e-5)
    contract = read_contract(tmp_path / "cut")
    assert contract.rotation == tuple(layer for layer in (1, 2, 4) if layer <= sub.layer)
    assert "rotated, each by a matrix of its own" in (tmp_path / "cut/README.md").read_text("utf-8")
    save_encoder(again, tmp_path / "again")
    second = load_encoder(tmp_path / "again")
    assert torch.equal(second.encode(sentences, layers).values, again.encode(sentences, layers).values)
    assert weights_hash(second) == weights_hash(again)


def test_a_cut_of_a_cut_is_the_cut(encoder, tmp_path, sentences):
    save_encoder(encoder, tmp_path / "large", SubModel(3, 24))
    large = load_encoder(tmp_path / "large")
    save_encoder(large, tmp_path / "small", SubModel(2, 16))
    assert_shipped(tmp_path / "small", encoder, sentences, SubModel(2, 16))
    large.rotate(Householder().rotation([2, 3], 24, 0, large.rotation))  # trained on from a cut
    assert (large.rotation.layers, large.rotation.width, large.rotation.taken) == ((1, 2, 3), 24, 32)
    save_encoder(large, tmp_path / "more", SubModel(3, 8))
    assert_shipped(tmp_path / "more", large, sentences, SubModel(3, 8))


@pytest.mark.parametrize("pooling", ["concat", "last_layer"])
def test_other_poolings_are_rotated_too(tiny_bert, tmp_path, sentences, pooling):
    encoder = load_encoder(tiny_bert, pooling=pooling)
    encoder.rotate(turned((2,), encoder.width))
    save_encoder(encoder, tmp_path / "cut", SubModel(2, 12))
    assert_shipped(tmp_path / "cut", encoder, sentences, SubModel(2, 12))


def test_the_graph_turns_vectors_and_states_of_tokens(encoder):
    inputs = encoder.process(["a cat", "the dog runs"], "document")
    cut = encoder.rotation.cut(2, 16)
    graph = Graph(encoder.backbone, encoder.pooling, dim=16, normalize=True, skips=False, rotation=cut[2])
    graph.backbone = type(encoder.backbone)(encoder.backbone.cut(2))
    tokens, vectors, states = graph(*graph.inputs(inputs))
    assert states.shape[-1] == 32, "those that the folder's modules pool and turn"
    expected = encoder(inputs, (2,)).at(SubModel(2, 16))
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    mask = inputs.mask.unsqueeze(-1)
    pooled = nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1)
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-5)


def test_a_layer_trained_elsewhere_is_read_as_it_is(encoder, tmp_path, sentences, caplog):
    save_encoder(encoder, tmp_path / "model")
    file = next(tmp_path.glob("model/*_Dense/model.safetensors"))
    save_file({"linear.weight": load_file(file)["linear.weight"] * 1.01}, file)
    with caplog.at_level(logging.WARNING):
        again = load_encoder(tmp_path / "model")
    assert f"{FILE} is left out: what follows the pooling is another layer by now" in caplog.text
    assert again.rotation is None
    assert again.pooling.name == "projected"
    assert_shipped(tmp_path / "model", again, sentences, SubModel(4, 32))


def test_a_changed_rotation_is_named(encoder, tmp_path):
    folder = save_encoder(encoder, tmp_path / "model")
    whole = load_file(folder / FILE)
    save_file({name: value for name, value in whole.items() if name != "layer_1"}, folder / FILE)
    with pytest.raises(InputError, match=r"says rotation is \(1, 2, 4\) but the folder has \(2, 4\)"):
        load_encoder(folder)
    save_file({**whole, "layer_2": whole["layer_2"] / 0}, folder / FILE)
    with pytest.raises(InputError, match=r"must hold matrices layer_N of finite numbers"):
        load_encoder(folder)
    (folder / FILE).unlink()
    with pytest.raises(InputError, match=r"says rotation is \(1, 2, 4\) but the folder has \(\)"):
        load_encoder(folder)
    assert read_rotation(folder, "") == {}


def test_a_folder_of_an_older_version_has_none(encoder, tmp_path):
    encoder.rotation = None
    folder = save_encoder(encoder, tmp_path / "model", SubModel(2, 8))
    said = json.loads((folder / "embedtrain.json").read_text("utf-8"))
    said.pop("rotation")
    (folder / "embedtrain.json").write_text(json.dumps({**said, "format": 4}), "utf-8")
    assert read_contract(folder).rotation == ()
    assert load_encoder(folder).rotation is None


def test_a_rotation_of_another_width_is_refused(encoder):
    with pytest.raises(InputError, match=r"turns vectors of 16 coordinates to 16, and this model pools 32"):
        encoder.rotate(turned(width=16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Householder(reflections=3), "reflections must be an even number of 2 or more, got 3"),
        (lambda: Householder(lr=0), "lr must be above 0, got 0"),
        (lambda: Householder(start="svd"), "start must be one of identity, pca, random, got 'svd'"),
        (lambda: Fixed(sample=1), "sample must be 2 or more, got 1"),
        (lambda: Fixed(last="svd"), "last must be one of identity, pca, random, none, got 'svd'"),
        (lambda: Linear(lr=0), "lr must be above 0, got 0"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_adapters_come_with_the_rotation(tiny_llama, tmp_path, sentences):
    encoder = load_encoder(tiny_llama, pooling="mean", lora={"rank": 2})
    encoder.rotate(turned((2, 4)))
    save_adapter(encoder, tmp_path / "adapter")
    again = load_encoder(tmp_path / "adapter")
    found, expected = (each.encode(sentences, (2, 4)).values for each in (again, encoder))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    (tmp_path / "adapter" / FILE).unlink()
    with pytest.raises(InputError, match=r"says rotation is \(2, 4\) but the folder has \(\)"):
        load_encoder(tmp_path / "adapter")
