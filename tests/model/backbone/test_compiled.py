"""Blocks that are compiled one by one: once for all lengths, whatever else of them is watched."""

import shutil

import pytest
import torch
from small_runs import assert_equal_bits, compose, lines_of, train, weights, without
from tiny_models import some_tokens, tiny_config, tiny_model
from torch._dynamo.utils import counters

from embedtrain.model.backbone import block_states
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.run import build, stage
from embedtrain.run.run import Run
from embedtrain.types import InputError

SHAPES = [(rows, 3 + 2 * number) for number, rows in enumerate((2, 3, 4, 5, 6, 7, 8) * 2)]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_block_is_one_graph_for_all_lengths(kind):
    graphs = []

    def counted(graph, _example):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    plain, compiled = (Backbone(tiny_model(tiny_config(kind, num_hidden_layers=2))) for _ in range(2))
    block_states.compile_blocks(compiled.blocks, counted)
    for number, (rows, longest) in enumerate(SHAPES):
        tokens = some_tokens([longest, *[2 + row % longest for row in range(rows - 1)]])
        layers = ((1, 2), (2,), (0, 1), (1,))[number % 4]
        found, expected = compiled(tokens, layers), plain(tokens, layers)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
    assert len(graphs) == 1, "which serves both blocks"


def test_dropout_leaves_a_block_whole_and_is_drawn_again_from_its_seed():
    graphs = []

    def counted(graph, _example):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    backbone = Backbone(tiny_model(tiny_config("bert", num_hidden_layers=2))).train()
    block_states.compile_blocks(backbone.blocks, counted)

    def states(tokens, seed):
        torch.manual_seed(seed)
        return torch.stack(backbone(tokens, (1, 2)))

    for longest in (5, 9, 14):
        tokens = some_tokens([longest, 4, 3])
        with torch.no_grad():
            first = states(tokens, 1)  # as GradCache, which encodes twice
        assert torch.equal(first, states(tokens, 1))
        assert not torch.equal(first, states(tokens, 2))
    assert len(graphs) == 2, "with gradients and without"


def still(module):
    """It without dropout, whose masks are others in compiled blocks."""
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return module


@pytest.fixture
def without_dropout(monkeypatch):
    make = build.make_encoder
    monkeypatch.setattr(build, "make_encoder", lambda settings: still(make(settings)))


def test_a_run_compiles_its_blocks_and_trains_the_same(small_run, tmp_path, monkeypatch, without_dropout):
    compiled, plain = [], block_states.compile_blocks
    monkeypatch.setattr(
        stage, "compile_blocks", lambda blocks: [plain(blocks, "eager"), compiled.append(blocks)]
    )
    words = [*without(small_run, "output_root"), f"output_root={tmp_path}", "trainer.max_steps=2"]
    for name in ("plain", "compiled"):
        train([*words, f"name={name}", f"trainer.compile={str(name == 'compiled').lower()}"])
    assert len(compiled) == 1
    assert_equal_bits(*(weights(tmp_path / name) for name in ("plain", "compiled")))


@pytest.fixture
def inductor(tmp_path, monkeypatch):
    """The compiler of kernels, its cache empty."""
    if shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_kernels_of_inductor_compute_what_torchs_do(kind, inductor):
    plain, compiled = (
        still(Backbone(tiny_model(tiny_config(kind, num_hidden_layers=2)))).train() for _ in range(2)
    )
    block_states.compile_blocks(compiled.blocks)
    for rows, longest in SHAPES:
        tokens = some_tokens([longest, *[2 + row % longest for row in range(rows - 1)]])
        seen = []
        for backbone in (plain, compiled):
            states = torch.stack(backbone(tokens, (1, 2))) * tokens.mask[..., None]
            slopes = torch.autograd.grad(states.square().sum(), list(backbone.blocks.parameters()))
            seen.append((states.detach(), torch.cat([slope.flatten() for slope in slopes])))
        (states, slope), (expected, right) = seen
        torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)
        assert (slope - right).norm() < 1e-5 * right.norm()
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.slow
def test_a_run_on_kernels_of_inductor(inductor, small_run, tmp_path, without_dropout):
    words = [*without(small_run, "output_root"), f"output_root={tmp_path}", "trainer.max_steps=4"]
    words += ["gradcache=chunks", "gradcache.max_tokens=64", "trainer.log_every_n_steps=1"]
    losses = []
    for name in ("plain", "compiled"):
        train([*words, f"name={name}", f"trainer.compile={str(name == 'compiled').lower()}"])
        losses.append([line["train/loss"] for line in lines_of(tmp_path / name) if "train/loss" in line])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0]
    assert 2 <= counters["stats"]["unique_graphs"] <= 6, "with a gradient and without, not one a length"
    assert (tmp_path / "compiled/model/model.safetensors").exists()


def test_shares_of_a_backbone_are_not_compiled(small_run, tmp_path):
    words = [*small_run, "name=x", f"output_root={tmp_path}", "trainer=cpu", "trainer.max_steps=2"]
    with pytest.raises(InputError, match=r"trainer\.compile cannot be used with trainer\.shard"):
        Run(compose([*words, "trainer.compile=true", "trainer.shard=true"]))
    assert not (tmp_path / "x").exists()
