import pytest
import torch

from embedtrain.model.folder import onnx
from embedtrain.model.folder.contract import read_contract
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.types import InputError, SubModel

for name in onnx.NEEDED:
    pytest.importorskip(name)


@pytest.fixture(scope="module")
def exported(tiny_bert, tmp_path_factory):
    root = tmp_path_factory.mktemp("onnx")
    small = save_encoder(load_encoder(tiny_bert, pooling="cls", max_length=20), root / "cut", SubModel(1, 32))
    encoder, folder = load_encoder(small, normalize=False), root / "model"
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert onnx.export_onnx(encoder, folder) == folder
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    return encoder, folder


def test_the_folder_has_graph_tokenizer_and_contract(exported):
    _, folder = exported
    files = ["embedtrain.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in folder.iterdir()) == files
    contract = read_contract(folder)
    assert contract is not None
    found = contract.pooling, contract.num_layers, contract.width, contract.normalize
    assert found == ("cls", 1, 32, False)


@pytest.mark.parametrize("side", ["right", "left"])
def test_any_number_of_texts_of_any_length_on_either_side(exported, sentences, side):
    import onnxruntime

    encoder, folder = exported
    process = TextTokenizer(encoder.process.tokenizer, 20, padding_side=side)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == ["input_ids", "attention_mask"]
    for texts in (sentences, sentences[:1], sentences[2:5]):
        tokens = process(texts, "document")
        found = onnx.run(session, {"input_ids": tokens.values, "attention_mask": tokens.mask.to(torch.int64)})
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
    monkeypatch.setattr(onnx, "run", lambda _, inputs: torch.full((len(inputs["input_ids"]), 16), 0.5))
    with pytest.raises(RuntimeError, match=r"the ONNX graph is off by .* from torch .*: nothing was written"):
        onnx.export_onnx(encoder, tmp_path / "model", SubModel(1, 16))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused_before_the_export(exported, tmp_path):
    encoder, folder = exported
    with pytest.raises(InputError, match=r"there is no sub-model L2_D8"):
        onnx.export_onnx(encoder, tmp_path / "model", SubModel(2, 8))
    with pytest.raises(InputError, match="model exists already"):
        onnx.export_onnx(encoder, folder)


def test_the_tokenizer_beside_a_graph_gives_its_inputs(tiny_bert, tmp_path):
    from transformers import AutoTokenizer

    onnx.export_onnx(load_encoder(tiny_bert), tmp_path / "onnx", SubModel(1, 8))
    given = AutoTokenizer.from_pretrained(tmp_path / "onnx")(["a cat", "bird"], padding=True)
    assert list(given) == ["input_ids", "attention_mask"]
