import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from shipped import assert_shipped

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.adapter import base_hash, save_adapter
from embedtrain.model.folder.contract import read_contract
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import InputError, SubModel

pytest.importorskip("peft")

SETTINGS = {
    "pooling": "latent_attention",
    "attention": "bidirectional",
    "prompts": {"query": "the word: "},
    "include_prompt": False,
    "append_eos": True,
    "padding_side": "left",
    "max_length": 20,
}
LAYERS = (1, 4)


def tuned(path: Path, **settings: object) -> Encoder:
    """An encoder whose adapters and pooling are as if they had been trained."""
    encoder = load_encoder(path, lora={"rank": 4, "dropout": 0.1}, **SETTINGS | settings)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(11)
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return encoder


def both(encoder: Encoder, texts: tuple[str, ...]) -> torch.Tensor:
    return torch.cat([encoder.encode(texts, LAYERS, role).values for role in ("query", "document")])


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_bert"])
def base(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / request.param
    return Path(shutil.copytree(request.getfixturevalue(request.param), folder))


@pytest.fixture(scope="module")
def encoder(base) -> Encoder:
    return tuned(base, **({} if "llama" in base.name else {"attention": None}))


@pytest.fixture(scope="module")
def adapter(encoder, tmp_path_factory) -> Path:
    return save_adapter(encoder, tmp_path_factory.mktemp("run") / "adapter")


def same(one: Encoder, other: Encoder, texts: tuple[str, ...]) -> None:
    """Equal but for the last bits of values up to 10, which the address of a weight may decide."""
    torch.testing.assert_close(both(one, texts), both(other, texts), rtol=1e-6, atol=1e-5)


def test_an_adapter_folder_comes_back_whole_and_trainable(encoder, adapter, base, sentences):
    again = load_encoder(adapter)
    same(again, encoder, sentences)
    untouched = both(load_encoder(base, **{**SETTINGS, "attention": None}), sentences)
    assert (untouched - both(again, sentences)).abs().max() > 0.1
    names = [name for name, value in again.named_parameters() if value.requires_grad]
    assert names == [name for name, value in encoder.named_parameters() if value.requires_grad]
    assert any("lora_" in name for name in names)
    assert any(name.startswith("pooling.") for name in names)
    assert again.process.prompts == {"query": "the word: "}
    assert (again.max_length, again.origin, again.source) == (20, encoder.origin, encoder.source)


def test_an_adapter_folder_has_no_weights_of_the_base(adapter):
    files = """.embedtrain README.md adapter_config.json adapter_model.safetensors embedtrain.json
        pooling.safetensors
        tokenizer.json tokenizer_config.json"""
    assert sorted(path.name for path in adapter.iterdir()) == files.split()
    assert all("lora_" in name for name in load_file(adapter / "adapter_model.safetensors"))


def test_an_adapter_can_be_saved_merged_and_cut_after_reloading(encoder, adapter, tmp_path, sentences):
    sub = SubModel(2, 16)
    save_encoder(load_encoder(adapter), tmp_path / "cut", sub)
    assert_shipped(tmp_path / "cut", encoder, sentences, sub)
    save_adapter(load_encoder(adapter), tmp_path / "adapter")
    same(load_encoder(tmp_path / "adapter"), encoder, sentences)


def embedded(folder: Path, texts: tuple[str, ...]) -> torch.Tensor:
    return load_encoder(folder).encode(texts, LAYERS, "query").values


def test_an_adapter_folder_is_the_same_in_another_process(encoder, adapter, sentences, processes):
    found = processes.result(Path(__file__), "embedded", adapter, sentences)
    torch.testing.assert_close(found, encoder.encode(sentences, LAYERS, "query").values, rtol=1e-6, atol=1e-5)


def test_peft_itself_reads_the_adapters(encoder, adapter, base, sentences):
    from peft import PeftModel
    from transformers import AutoModel

    config = encoder.backbone.model.config
    plain = AutoModel.from_pretrained(base, config=config)
    merged = PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload()
    tokens = encoder.process(sentences, "query")
    with torch.no_grad():
        expected = encoder.backbone(tokens, (4,))[0]
        found = Backbone(merged).eval()(tokens, (4,))[0]
    torch.testing.assert_close(found[tokens.mask], expected[tokens.mask], rtol=0, atol=1e-4)  # of up to 10


def test_another_place_of_the_base_may_be_given(encoder, adapter, base, tmp_path, sentences):
    moved = Path(shutil.copytree(base, tmp_path / "moved"))
    again = load_encoder(adapter, base=moved)
    same(again, encoder, sentences)
    assert again.origin == str(moved)


def test_a_base_that_is_gone_or_another_is_refused(adapter, base, tmp_path):
    alone = Path(shutil.copytree(adapter, tmp_path / "alone"))
    contract = json.loads((alone / "embedtrain.json").read_text())
    contract["base"]["source"] = str(tmp_path / "gone")
    (alone / "embedtrain.json").write_text(json.dumps(contract))
    with pytest.raises(InputError, match=r"needs the model its adapters belong to: .*gone.*as base=\.\.\."):
        load_encoder(alone)
    other = Path(shutil.copytree(base, tmp_path / "other"))
    state = load_file(other / "model.safetensors")
    state[next(iter(state))] += 1
    save_file(state, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"is not the model that the adapters .* says base weights_hash is \w{12}"
    ):
        load_encoder(adapter, base=other)


def test_a_base_in_another_dtype_is_taken_with_a_warning(adapter, caplog):
    encoder = load_encoder(adapter, dtype="bfloat16")
    assert "adapters of weights in float32, not bfloat16" in caplog.text
    assert next(encoder.backbone.parameters()).dtype == torch.bfloat16


def test_the_hash_of_the_base_does_not_feel_adapters(encoder, adapter, base):
    contract = read_contract(adapter)
    assert contract is not None
    assert contract.base is not None
    assert contract.base.weights_hash == base_hash(Backbone.load(base)) == base_hash(encoder.backbone)


def test_adapters_without_our_contract_or_without_adapters_are_refused(adapter, base, tmp_path):
    bare = Path(shutil.copytree(adapter, tmp_path / "bare"))
    (bare / "embedtrain.json").unlink()
    if (bare / "pooling.safetensors").exists():
        with pytest.raises(InputError, match=r"pooling\.safetensors and no embedtrain\.json that says how"):
            load_encoder(bare)
    else:
        assert load_encoder(bare).pooling.name == "mean"  # as its base, which says nothing
    with pytest.raises(InputError, match="the backbone has no LoRA adapters to save"):
        save_adapter(load_encoder(base), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_trained_parameters_of_another_pooling_are_refused(adapter, tmp_path):
    strange = Path(shutil.copytree(adapter, tmp_path / "strange"))
    state = load_file(strange / "pooling.safetensors")
    state.pop(sorted(state)[0])
    save_file(state, strange / "pooling.safetensors")
    with pytest.raises(InputError, match=r"pooling\.safetensors does not fit pooling 'latent_attention': "):
        load_encoder(strange)


@pytest.mark.parametrize("base", ["tiny_llama", "tiny_bert"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "eos", "max"])
def test_the_readme_of_an_adapter_opens_it_in_peft_alone(request, tmp_path, monkeypatch, base, pooling):
    path = request.getfixturevalue(base)
    attention = "bidirectional" if base == "tiny_llama" else None
    settings = {"pooling": pooling, "attention": attention, "include_prompt": True, "append_eos": False}
    encoder = tuned(path, **settings, prompts={"document": "the word: "})
    monkeypatch.chdir(tmp_path)
    card = (save_adapter(encoder, "adapter") / "README.md").read_text()
    ours, alone = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    found: dict[str, Any] = {}
    exec(alone, found)  # as somebody types it
    expected = encoder.encode(("first text", "second text"), (4,), "document").at(SubModel(4, 32))
    torch.testing.assert_close(found["vectors"], expected, rtol=0, atol=1e-5)
    exec(ours, found)
    assert found["model"].encoder.origin == str(path)
