"""Encoding on a CPU keeps weights as its kernels read them, and never uses those of another moment."""

import copy
import pickle

import pytest
import torch
from torch import nn

from embedtrain.model.folder.export import load_encoder
from embedtrain.model.reordered import Reordered

TEXTS = ["a cat", "the old man plays the guitar in the house", "red"]
LAYERS = (1, 4)


@pytest.fixture
def encoder(tiny_bert):
    return load_encoder(tiny_bert, packing=False).eval()


def linears(encoder):
    return [part for part in encoder.backbone.modules() if type(part) is nn.Linear]


def replaced(encoder):
    """How many linear layers compute otherwise now."""
    return sum("forward" in vars(layer) for layer in linears(encoder))


def plain(encoder):
    """The vectors by the products of torch alone."""
    with torch.no_grad():
        return encoder(encoder.process(TEXTS, "document"), LAYERS).values


def close(encoder, tolerance=1e-6):
    torch.testing.assert_close(encoder.encode(TEXTS, LAYERS).values, plain(encoder), rtol=0, atol=tolerance)


@pytest.fixture
def seen():
    """How many layers were replaced in each forward of a backbone."""
    found = []

    def watch(encoder):
        encoder.backbone.register_forward_pre_hook(lambda *_: found.append(replaced(encoder)))
        return found

    return watch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_vectors_are_those_of_plain_products(tiny_bert, dtype, seen):
    encoder = load_encoder(tiny_bert, dtype=dtype, packing=False).eval()
    found = seen(encoder)
    close(encoder, 1e-6 if dtype == torch.float32 else 0.05)
    able = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()  # not of AVX2 alone
    assert found == [len(linears(encoder)) if able else 0, 0], "while encoding, not in a forward of its own"
    assert replaced(encoder) == 0


def test_weights_are_put_in_order_once(encoder, monkeypatch):
    made = counted(monkeypatch)
    for _ in range(3):
        encoder.encode(TEXTS, LAYERS)
    assert len(made) == 1
    encoder.train()
    for _ in range(2):
        encoder.encode(TEXTS, LAYERS)
    assert len(made) == 2, "the third call of training finds nothing kept"


def counted(monkeypatch):
    from embedtrain.model import reordered

    made, own = [], reordered._products
    monkeypatch.setattr(reordered, "_products", lambda model: made.append(1) or own(model))
    return made


def within_no_grad(change):
    def run(layer):
        with torch.no_grad():
            change(layer)

    return run


CHANGES = {
    "in place": within_no_grad(lambda layer: layer.weight.mul_(1.5)),
    "behind autograd": lambda layer: layer.weight.data.mul_(1.5),
    "some rows behind autograd": lambda layer: layer.weight.data[-4:].mul_(3.0),
    "a column behind autograd": lambda layer: layer.weight.data[:, -1].mul_(9.0),
    "other data": lambda layer: setattr(layer.weight, "data", layer.weight.data * 1.5),
    "another parameter": lambda layer: setattr(layer, "weight", nn.Parameter(layer.weight.detach() * 1.5)),
    "the bias in place": lambda layer: layer.bias.data.add_(0.5),
    "another bias": lambda layer: setattr(layer, "bias", nn.Parameter(layer.bias.detach() + 0.5)),
    "read anew": lambda layer: layer.load_state_dict({k: v * 1.5 for k, v in layer.state_dict().items()}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_change_of_weights_is_missed(encoder, change):
    before = encoder.encode(TEXTS, LAYERS).values
    change(linears(encoder)[1])
    close(encoder)
    assert not torch.allclose(plain(encoder), before, atol=1e-4)


def test_an_optimizer_step_is_not_missed(encoder):
    close(encoder)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.01, fused=True)
    encoder(encoder.process(TEXTS, "document"), LAYERS).values[..., 0].sum().backward()
    optimizer.step()
    close(encoder)


def test_training_afterwards_has_its_gradients(encoder):
    encoder.encode(TEXTS, LAYERS)
    encoder.train()
    encoder(encoder.process(TEXTS, "document"), LAYERS).values.sum().backward()
    assert all(value.grad is not None for value in encoder.backbone.blocks.parameters())


def test_a_thread_that_trains_meanwhile_has_its_gradients(encoder):
    encoder.encode(TEXTS, LAYERS)
    with encoder._reordered.used(encoder, keep=True), torch.enable_grad():
        assert replaced(encoder) > 0
        encoder(encoder.process(TEXTS, "document"), LAYERS).values.sum().backward()
    assert all(value.grad is not None for value in encoder.backbone.blocks.parameters())


def test_an_error_gives_the_layers_back(encoder):
    with pytest.raises(ValueError, match="layers must be"):
        encoder.encode(TEXTS, (9,))
    assert replaced(encoder) == 0


def gone(monkeypatch):
    def refuse(*_):
        raise RuntimeError("this processor cannot")

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", refuse)


def too_large(monkeypatch):
    monkeypatch.setattr("embedtrain.model.reordered.MOST_BYTES", 1)


@pytest.mark.parametrize("where", [gone, too_large])
def test_where_it_cannot_be_all_is_as_without(encoder, where, monkeypatch, seen):
    where(monkeypatch)
    found = seen(encoder)
    assert torch.equal(encoder.encode(TEXTS, LAYERS).values, plain(encoder))
    assert found == [0, 0]


def test_compiled_blocks_autocast_and_float64_keep_their_products(tiny_bert, seen):
    encoder = load_encoder(tiny_bert, dtype="float64", packing=False).eval()
    found = seen(encoder)
    encoder.encode(TEXTS, LAYERS)
    encoder.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder.encode(TEXTS, LAYERS)
    assert found == [0, 0]
    encoder.backbone.blocks[0].compile(backend="eager")
    encoder.encode(TEXTS, LAYERS)
    assert found[2:] == [0]


def test_a_copy_begins_empty(encoder):
    expected = encoder.encode(TEXTS, LAYERS).values
    for other in (copy.deepcopy(encoder._reordered), pickle.loads(pickle.dumps(encoder._reordered))):
        assert isinstance(other, Reordered)
        assert other._products is None
    assert torch.equal(copy.deepcopy(encoder).encode(TEXTS, LAYERS).values, expected)
