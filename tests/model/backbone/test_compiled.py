"""Blocks that are compiled one by one: once for all lengths, whatever else of them is watched."""

import pytest
import torch
from small_runs import assert_equal_bits, compose, train, weights, without
from tiny_models import some_tokens, tiny_config, tiny_model

from embedtrain.model.backbone import block_states
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.run import stage
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


def test_a_run_compiles_its_blocks_and_trains_the_same(small_run, tmp_path, monkeypatch):
    compiled = []
    plain = block_states.compile_blocks
    monkeypatch.setattr(
        stage, "compile_blocks", lambda blocks: [plain(blocks, "eager"), compiled.append(blocks)]
    )
    words = [*without(small_run, "output_root"), f"output_root={tmp_path}", "trainer.max_steps=2"]
    for name in ("plain", "compiled"):
        train([*words, f"name={name}", f"trainer.compile={str(name == 'compiled').lower()}"])
    assert len(compiled) == 1
    assert_equal_bits(*(weights(tmp_path / name) for name in ("plain", "compiled")))


def test_shares_of_a_backbone_are_not_compiled(small_run, tmp_path):
    words = [*small_run, "name=x", f"output_root={tmp_path}", "trainer=cpu", "trainer.max_steps=2"]
    with pytest.raises(InputError, match=r"trainer\.compile cannot be used with trainer\.shard"):
        Run(compose([*words, "trainer.compile=true", "trainer.shard=true"]))
    assert not (tmp_path / "x").exists()
