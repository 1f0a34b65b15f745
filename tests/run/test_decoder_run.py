"""A whole run on a tiny decoder: bidirectional, latent attention, LoRA, prompts; stopped, continued, cut."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shipped import assert_shipped
from small_runs import StopAfter, assert_equal_bits, command, without

from embedtrain.model.folder.export import load_encoder
from embedtrain.run.run import Run
from embedtrain.types import SubModel

pytest.importorskip("peft")
TEXTS = ("a cat sleeps", "the man plays guitar in the old house")


@pytest.fixture(scope="module")
def words(small_run, tiny_llama, small_data) -> list[str]:
    more = """name=decoder backbone.attention=bidirectional backbone.append_eos=true
        backbone.include_prompt=false pooling=latent_attention pooling.latents=4 trainer.max_steps=6
        trainer.checkpoint_every_n_steps=2 exports=[[2,16]]"""
    backbone = ["backbone.prompts={query: 'the word: '}", "backbone.lora={rank: 4, dropout: 0.1}"]
    places = [f"backbone.path={tiny_llama}", f"data.validation={small_data}/validation.jsonl"]
    return [*small_run, *more.split(), *backbone, *places]


@pytest.fixture(scope="module")
def finished(words, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("decoder_runs")
    command("train", *words, f"output_root={root}")
    return root / "decoder"


def test_model_and_adapters_embed_alike_and_differ_from_the_base(finished, tiny_llama):
    merged, apart = load_encoder(finished / "model"), load_encoder(finished / "adapter")
    for role in ("query", "document"):
        one, two = (encoder.encode(TEXTS, (1, 2, 4), role).values for encoder in (merged, apart))
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
    before = load_encoder(tiny_llama, attention="bidirectional", pooling=merged.pooling, append_eos=True)
    moved = before.encode(TEXTS, (4,)).at(SubModel(4, 32)) - merged.encode(TEXTS, (4,)).at(SubModel(4, 32))
    assert moved.abs().max() > 1e-3
    assert merged.process.prompts == {"query": "the word: "}
    assert apart.trained == merged.trained == (SubModel(1, 8), SubModel(2, 16), SubModel(4, 32))


def test_the_cut_is_the_model_at_that_size_in_sentence_transformers(finished):
    assert_shipped(finished / "cut_L2_D16", load_encoder(finished / "model"), TEXTS, SubModel(2, 16))


def test_a_checkpoint_has_what_is_trained_and_not_the_base(finished):
    state = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=False)
    names = set(state["state_dict"])
    inside = {name for name in names if name.startswith("encoder.backbone.")}
    assert inside
    assert all("lora_" in name for name in inside)
    assert {name for name in names if name.startswith("encoder.pooling.")}
    assert "frozen_hash" in state


def test_a_run_that_was_stopped_ends_in_the_same_weights(finished, words, tmp_path, monkeypatch):
    whole = Run.fit

    def stopped(self: Run, *more: object) -> None:
        self.stage.trainer.callbacks.append(StopAfter(3))
        whole(self, *more)

    again = [*words, f"output_root={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "fit", stopped)
        with pytest.raises(SystemExit):
            command("train", *again)
    assert (tmp_path / "decoder" / "checkpoints" / "last.ckpt").exists()
    command("train", *again)
    for file in ("model/model", "adapter/pooling", "adapter/adapter_model"):
        folders = (finished, tmp_path / "decoder")
        assert_equal_bits(*(load_file(folder / f"{file}.safetensors") for folder in folders))


def test_a_pooling_of_its_own_for_each_layer_needs_a_constant_plan(words, tmp_path, monkeypatch, capsys):
    own = without(words, "plan.pairs")
    own += ["pooling.shared=false", f"output_root={tmp_path}", "plan=random2d", "plan.dims=[8,32]"]
    with pytest.raises(SystemExit):
        command("train", *own)
    assert "pooling: shared=false gives each layer parameters of its own" in capsys.readouterr().err
    assert not (tmp_path / "decoder").exists()


def test_the_export_command_says_how_to_use_what_it_wrote(finished, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    command("export", f"model={finished}", "layer=2", "dim=16", f"out={out}")
    said = capsys.readouterr().out
    assert f'SentenceTransformer("{out}", trust_remote_code=True).encode_query(["a text"])' in said
    assert json.loads((out / "embedtrain.json").read_text())["pooling"] == "latent_attention"


def test_the_export_command_names_what_onnx_lacks(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("embedtrain.model.folder.onnx.NEEDED", ("onnx", "no_such_runtime"))
    words = [f"model={finished}", f"out={tmp_path / 'out'}", "onnx=true"]
    with pytest.raises(SystemExit):
        command("export", *words)
    assert "ONNX export needs no_such_runtime: pip install 'embedtrain[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
