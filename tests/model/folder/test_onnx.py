import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoTokenizer

from embedtrain.model.folder import onnx
from embedtrain.model.folder.contract import read_contract
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.types import InputError, SubModel

for name in onnx.NEEDED:
    pytest.importorskip(name)
import onnxruntime  # noqa: E402


@pytest.fixture(scope="module")
def exported(tiny_bert, tmp_path_factory):
    root = tmp_path_factory.mktemp("onnx")
    small = save_encoder(load_encoder(tiny_bert, pooling="cls", max_length=20), root / "cut", SubModel(1, 32))
    encoder, folder = load_encoder(small, normalize=False), root / "model"
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert onnx.export_onnx(encoder, folder).texts == len(onnx.PROBE)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    return encoder, folder


def session_of(folder, file="model.onnx"):
    return onnxruntime.InferenceSession(str(folder / "onnx" / file), providers=["CPUExecutionProvider"])


def given_by(folder, texts):
    read = AutoTokenizer.from_pretrained(folder)
    return dict(read(list(texts), padding=True, truncation=True, return_tensors="pt"))


def test_the_folder_is_the_model_with_graphs_in_it(exported, tmp_path):
    encoder, folder = exported
    plain = save_encoder(encoder, tmp_path / "model")
    graphs = {"model.onnx", "onnx", "onnx/model.onnx", "onnx/model_quantized.onnx"}
    names = [{str(path.relative_to(root)) for path in root.rglob("*")} for root in (folder, plain)]
    assert names[0] - names[1] == graphs
    assert not names[1] - names[0]
    assert (folder / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    assert (folder / "model.onnx").samefile(folder / "onnx" / "model.onnx")
    assert read_contract(folder) == read_contract(plain)
    assert load_encoder(folder).normalize is False


def test_the_card_says_what_int8_costs(exported):
    _, folder = exported
    (said,) = re.findall(
        r"cosine to float32 ([0-9.]+) on average, ([0-9.]+) at least", (folder / "README.md").read_text()
    )
    vectors = []
    for file in ("model.onnx", "model_quantized.onnx"):
        _, found = onnx.run(session_of(folder, file), given_by(folder, onnx.PROBE))
        vectors.append(F.normalize(found, dim=-1))
    cosines = (vectors[0] * vectors[1]).sum(1)
    assert said == (f"{cosines.mean():.4f}", f"{cosines.min():.4f}")
    assert cosines.min() > 0.9


def test_the_lines_of_the_card_give_the_vectors_of_the_model(exported, monkeypatch):
    encoder, folder = exported
    card = (folder / "README.md").read_text()
    assert "onnx=true" not in card, "the graphs are there"
    (lines,) = (code for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "onnxruntime" in code)
    monkeypatch.chdir(folder.parent)
    found = {}
    exec(lines, found)
    whole = SubModel(encoder.num_layers, encoder.width)
    expected = encoder.encode(["first text", "second text"], (whole.layer,)).raw(whole)
    torch.testing.assert_close(torch.tensor(found["embeddings"]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooled", ["mean", "cls", "gated_mean"])
def test_states_that_a_client_pools_and_normalises_are_the_vectors(tiny_bert, tmp_path, pooled):
    encoder = load_encoder(tiny_bert, pooling=pooled)
    if pooled == "gated_mean":
        nn.init.normal_(encoder.pooling.queries)
    onnx.export_onnx(encoder, tmp_path / "m", SubModel(1, 8))
    given, session = given_by(tmp_path / "m", ["a cat", "the big bird"]), session_of(tmp_path / "m")
    axes = [(item.name, item.shape) for item in (*session.get_inputs(), *session.get_outputs())]
    free = ["batch_size", "sequence_length"]
    assert axes == [
        ("input_ids", free),
        ("attention_mask", free),
        ("token_embeddings", [*free, 8]),
        ("sentence_embedding", ["batch_size", 8]),
    ]
    whole = onnxruntime.InferenceSession(str(tmp_path / "m/model.onnx"))
    outputs = [(item.name, item.shape) for item in whole.get_outputs()]
    assert outputs == [*axes[2:], ("last_hidden_state", [*free, 32])]
    (full,) = whole.run(["last_hidden_state"], {name: value.numpy() for name, value in given.items()})
    states, vectors = onnx.run(session, given)
    assert torch.equal(torch.tensor(full)[..., :8], states) == (pooled != "gated_mean")
    mask = given["attention_mask"].unsqueeze(-1)
    own = states[:, 0] if pooled == "cls" else (states * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(F.normalize(own, dim=-1), vectors, rtol=0, atol=1e-6)


def test_full_states_stay_out_of_a_graph_whose_tokens_are_gated(tiny_bert, tmp_path):
    for pooled, outputs in (("mean", 3), ("gated_mean", 2)):
        folder = tmp_path / pooled
        onnx.export_onnx(load_encoder(tiny_bert, pooling=pooled), folder)
        assert len(session_of(folder).get_outputs()) == outputs
        assert len(onnxruntime.InferenceSession(str(folder / "model.onnx")).get_outputs()) == 3


def test_states_without_prompts_need_no_length_of_one(tiny_bert, tmp_path):
    encoder = load_encoder(tiny_bert, prompts={"query": "a dog: "}, include_prompt=False)
    onnx.export_onnx(encoder, tmp_path / "m", SubModel(1, 8))
    whole = onnxruntime.InferenceSession(str(tmp_path / "m/model.onnx"))
    assert [item.name for item in (*whole.get_inputs(), *whole.get_outputs())] == [
        "input_ids", "attention_mask", "last_hidden_state",
    ]  # fmt: skip
    given = given_by(tmp_path / "m", ["a dog: a cat"])
    (states,) = whole.run(None, {name: value.numpy() for name, value in given.items()})
    vectors = F.normalize(torch.tensor(states)[:, 4:, :8].mean(1), dim=-1)  # [CLS] a dog : | a cat [SEP]
    expected = encoder.encode(["a cat"], (1,), "query").at(SubModel(1, 8))
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_any_number_of_texts_of_any_length_on_either_side(exported, sentences, side):
    encoder, folder = exported
    process = TextTokenizer(encoder.process.tokenizer, 20, padding_side=side)
    session = session_of(folder)
    assert [item.name for item in session.get_inputs()] == ["input_ids", "attention_mask"]
    for texts in (sentences, sentences[:1], sentences[2:5]):
        tokens = process(texts, "document")
        given = {"input_ids": tokens.values, "attention_mask": tokens.mask.to(torch.int64)}
        _, found = onnx.run(session, given)
        expected = encoder.encode(texts, (1,)).values[0]  # not of unit length
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("missing", onnx.NEEDED)
def test_missing_packages_come_with_the_cure(exported, tmp_path, monkeypatch, missing):
    find = onnx.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(InputError, match=rf"ONNX export needs {missing}: pip install 'embedtrain\[onnx\]'"):
        onnx.export_onnx(exported[0], tmp_path / "model")


def test_a_graph_that_is_off_is_not_kept(exported, tmp_path, monkeypatch):
    encoder, _ = exported
    monkeypatch.setattr(onnx, "_write_graph", lambda *_: None)
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: None)
    wrong = torch.full((1, 16), 0.5)
    monkeypatch.setattr(onnx, "run", lambda *_: (wrong, wrong))
    with pytest.raises(RuntimeError, match=r"the ONNX graph is off by .* from torch .*: nothing was written"):
        onnx.export_onnx(encoder, tmp_path / "model", SubModel(1, 16))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused_before_the_export(exported, tmp_path):
    encoder, folder = exported
    with pytest.raises(InputError, match=r"there is no sub-model L2_D8"):
        onnx.export_onnx(encoder, tmp_path / "model", SubModel(2, 8))
    with pytest.raises(InputError, match="model exists already"):
        onnx.export_onnx(encoder, folder)


def test_the_tokenizer_beside_a_graph_gives_its_inputs(exported):
    assert list(given_by(exported[1], ["a cat", "bird"])) == ["input_ids", "attention_mask"]
