"""Folders of a gated mean: modules of sentence-transformers that give its vectors, and back."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from shipped import assert_shipped
from torch import nn

from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import InputError, SubModel

FULL = SubModel(4, 32)
PROMPT = {"query": "the word: "}


@pytest.fixture
def encoder(tiny_bert):
    made = load_encoder(tiny_bert, pooling="gated_mean")
    nn.init.normal_(made.pooling.queries)
    return made


def gate_of(folder):
    return folder / "1_Dense"


@pytest.mark.parametrize("sub", [None, SubModel(2, 8), SubModel(4, 32)], ids=str)
def test_no_code_is_shipped_and_every_layer_comes_back(encoder, sub, tmp_path, sentences):
    folder = save_encoder(encoder, tmp_path / "model", sub)
    kinds = [
        module["type"].rpartition(".")[2] for module in json.loads((folder / "modules.json").read_text())
    ]
    assert kinds[:3] == ["Transformer", "Dense", "Pooling"]
    assert list(folder.glob("*.py")) == []
    assert_shipped(folder, encoder, sentences, sub or FULL)
    again = load_encoder(folder)
    layers = range(1, (sub or FULL).layer + 1)
    for layer in layers:
        cell = SubModel(layer, (sub or FULL).dim)
        found = again.encode(sentences, (layer,)).at(cell)
        torch.testing.assert_close(found, encoder.encode(sentences, (layer,)).at(cell), rtol=0, atol=1e-6)


def test_a_prompt_that_is_not_pooled_is_not_gated_in(tiny_bert, tmp_path, sentences):
    made = load_encoder(tiny_bert, pooling="gated_mean", prompts=PROMPT, include_prompt=False)
    nn.init.normal_(made.pooling.queries)
    folder = save_encoder(made, tmp_path / "model", SubModel(2, 8))
    assert_shipped(folder, made, sentences, SubModel(2, 8))


def test_saved_again_by_another_program_it_keeps_the_gate_of_its_last_layer(
    encoder, tmp_path, sentences, caplog
):
    folder = save_encoder(encoder, tmp_path / "model", SubModel(3, 16))
    SentenceTransformer(str(folder), device="cpu").save(str(tmp_path / "again"))
    again = load_encoder(tmp_path / "again")
    assert "layers below the last are pooled by the mean" in caplog.text
    assert not again.pooling.queries[:2].any()
    found = again.encode(sentences, (3,)).at(SubModel(3, 16))
    torch.testing.assert_close(found, encoder.encode(sentences, (3,)).at(SubModel(3, 16)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "held", [{"queries": torch.zeros(4, 32)}, {"queries": torch.zeros(0, 32)}, {"others": torch.zeros(4, 32)}]
)
def test_queries_of_another_gate_are_not_taken(encoder, tmp_path, caplog, held):
    folder = save_encoder(encoder, tmp_path / "model")
    save_file(held, gate_of(folder) / "queries.safetensors")
    again = load_encoder(folder)
    assert "does not fit the gate beside it" in caplog.text
    assert torch.equal(again.pooling.queries[-1], encoder.pooling.queries[-1])


@pytest.mark.parametrize("change", ["trained", "activation", "residual"])
def test_any_other_layer_of_tokens_is_refused(encoder, tmp_path, change):
    folder = save_encoder(encoder, tmp_path / "model")
    config = json.loads((gate_of(folder) / "config.json").read_text())
    if change == "trained":
        state = load_file(gate_of(folder) / "model.safetensors")
        state["linear.weight"][0, 0] += 0.1
        save_file(state, gate_of(folder) / "model.safetensors")
    elif change == "activation":
        config["activation_function"] = "torch.nn.modules.activation.Tanh"
    else:
        config["use_residual"] = True
    (gate_of(folder) / "config.json").write_text(json.dumps(config))
    message = r"1_Dense is a layer of each token; .* Point to the Hugging Face model"
    if change == "trained":
        message = r"1_Dense holds gates that another program has trained.*model\[1\]\.requires_grad_"
    with pytest.raises(InputError, match=message):
        load_encoder(folder)


def test_trained_further_by_another_program_behind_frozen_gates(encoder, tmp_path, sentences):
    """A whole model, and a cut of which the last layer trains as well."""
    for sub in (FULL, SubModel(3, 16)):
        folder = save_encoder(encoder, tmp_path / f"{sub}", sub)
        other = SentenceTransformer(str(folder), device="cpu")
        other[1].requires_grad_(False)
        trained = [value for value in other.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        other(other.tokenize(sentences))["sentence_embedding"][:, 0].sum().backward()
        optimizer.step()
        other.save(str(tmp_path / f"{sub}_further"))
        again = load_encoder(tmp_path / f"{sub}_further")
        found = again.encode(sentences, (sub.layer,)).at(sub)
        expected = torch.from_numpy(other.eval().encode(sentences))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert not torch.allclose(found, encoder.encode(sentences, (sub.layer,)).at(sub), atol=1e-3)


def test_another_pooling_replaces_the_gate_too(encoder, tmp_path, sentences, tiny_bert, caplog):
    folder = save_encoder(encoder, tmp_path / "model")
    again = load_encoder(folder, pooling="mean")
    assert "the pooling that is given replaces its gates" in caplog.text
    plain = load_encoder(tiny_bert, pooling="mean").encode(sentences, (4,)).at(FULL)
    torch.testing.assert_close(again.encode(sentences, (4,)).at(FULL), plain, rtol=0, atol=1e-6)


def test_gates_of_a_bfloat16_model_are_near(tiny_bert, tmp_path, sentences):
    made = load_encoder(tiny_bert, pooling="gated_mean", dtype="bfloat16")
    nn.init.normal_(made.pooling.queries, std=0.3)
    folder = save_encoder(made, tmp_path / "model")
    assert_shipped(folder, made, sentences, FULL, atol=0.03)
    again = load_encoder(folder, dtype="bfloat16")
    assert torch.equal(again.pooling.queries, made.pooling.queries)
