import errno
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from shipped import assert_shipped, shipped
from tokenizers import Tokenizer

from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.contract import Contract, read_contract
from embedtrain.model.folder.describe import weights_hash
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import InputError, SubModel

EVERY = (1, 2, 3, 4)


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_modernbert"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


def oracle(folder: Path, texts: tuple[str, ...]) -> torch.Tensor:
    return shipped(folder, texts, None)


def hash_of(folder: Path) -> str:
    return weights_hash(load_encoder(folder))


def trained(folder: Path, pooling: str = "mean") -> Encoder:
    encoder = load_encoder(folder, pooling=pooling, max_length=20)
    encoder.trained = (SubModel(1, 8), SubModel(2, 16), SubModel(4, 32))
    return encoder


def test_a_cut_of_a_cut_is_the_cut(folder, tmp_path, sentences):
    encoder = trained(folder)
    save_encoder(encoder, tmp_path / "large", SubModel(3, 24))
    save_encoder(load_encoder(tmp_path / "large"), tmp_path / "small", SubModel(2, 16))
    expected = encoder.encode(sentences, (2,)).at(SubModel(2, 16))
    torch.testing.assert_close(oracle(tmp_path / "small", sentences), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_whole_encoder_comes_back_bit_for_bit(folder, tmp_path, sentences, pooling):
    encoder = trained(folder, pooling)
    expected = encoder.encode(sentences, EVERY).values
    save_encoder(encoder, tmp_path / "whole")
    again = load_encoder(tmp_path / "whole")
    assert torch.equal(again.encode(sentences, EVERY).values, expected)
    assert again.trained == encoder.trained
    assert again.source == encoder.source == "/".join(["...", *folder.parts[-2:]])
    assert weights_hash(again) == weights_hash(encoder)
    assert_shipped(tmp_path / "whole", encoder, sentences, SubModel(4, 32))


def test_saving_changes_nothing_in_the_encoder(folder, tmp_path, sentences):
    encoder = trained(folder).train()
    before = encoder.state_dict()
    config = encoder.backbone.model.config.to_dict()
    ids = encoder.process(sentences, "query").values
    save_encoder(encoder, tmp_path / "cut", SubModel(2, 16))
    after = encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert encoder.backbone.model.config.to_dict() == config
    assert torch.equal(encoder.process(sentences, "query").values, ids)
    assert encoder.training
    assert encoder.num_layers == 4


def test_what_is_in_the_folder(tiny_bert, tmp_path):
    encoder = trained(tiny_bert)
    encoder.process(["a cat"], "query")  # leaves its truncation behind in the tokenizer
    save_encoder(encoder, tmp_path / "cut", SubModel(2, 16))
    alone = Tokenizer.from_file(str(tmp_path / "cut" / "tokenizer.json"))
    texts = ["a cat", "a bird " * 30]
    read = alone.encode_batch(texts)
    expected = encoder.process(texts, "document")
    assert [row.ids for row in read] == expected.values.tolist()
    assert [row.attention_mask for row in read] == expected.mask.int().tolist()
    assert json.loads((tmp_path / "cut" / "tokenizer_config.json").read_text())["model_max_length"] == 20
    files = """.embedtrain 1_Pooling/config.json 2_Dense/config.json 2_Dense/model.safetensors README.md
        config.json config_sentence_transformers.json embedtrain.json model.safetensors modules.json
        sentence_bert_config.json tokenizer.json tokenizer_config.json"""
    cut = tmp_path / "cut"
    assert {str(path.relative_to(cut)) for path in cut.rglob("*") if path.is_file()} == {*files.split()}
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert (config["is_matryoshka"], config["matryoshka_dimensions"]) == (True, [16])
    contract = read_contract(tmp_path / "cut")
    assert contract is not None
    assert contract._replace(tokenizer_hash="", versions={}) == Contract(
        pooling="mean", pooling_settings={}, rotation=(), pool_prompt=True, prompts={}, default_prompt=None,
        attention="bidirectional",
        special_tokens=(("[CLS]",), ("[SEP]",)), padding_side="right", max_length=20, normalize=True,
        num_layers=2, width=16, dtype="float32", tokenizer_hash="", code=None,
        trained=(SubModel(1, 8), SubModel(2, 16)), base=None, versions={},
        source="/".join(["...", *tiny_bert.parts[-2:]]),
    )  # fmt: skip
    assert set(contract.versions) == {"embedtrain", "torch", "transformers", "sentence-transformers"}
    card = (tmp_path / "cut" / "README.md").read_text()
    assert "2 transformer blocks that gives unit vectors of 16 coordinates" in card
    assert "(1, 8), (2, 16)" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("sub", [SubModel(0, 8), SubModel(5, 8), SubModel(2, 0), SubModel(2, 33)])
def test_a_sub_model_out_of_range_is_refused(tiny_bert, tmp_path, sub):
    message = (
        rf"no sub-model {sub}: layer must be in 1\.\.4 and dim in 1\.\.32 "
        r"\(trained sub-models: L1_D8, L2_D16, L4_D32\)"
    )
    with pytest.raises(InputError, match=message):
        save_encoder(trained(tiny_bert), tmp_path / "cut", sub)
    assert list(tmp_path.iterdir()) == []


def test_an_untrained_sub_model_is_saved_with_a_warning(tiny_bert, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        save_encoder(trained(tiny_bert), tmp_path / "cut", SubModel(3, 16))
    assert "sub-model L3_D16 was not trained (trained: L1_D8, L2_D16, L4_D32)" in caplog.text


def test_an_existing_folder_is_kept_unless_told(tiny_bert, tmp_path):
    encoder = trained(tiny_bert)
    save_encoder(encoder, tmp_path / "model")
    with pytest.raises(InputError, match=r"model exists already"):
        save_encoder(encoder, tmp_path / "model", SubModel(1, 8))
    assert load_encoder(tmp_path / "model").num_layers == 4
    save_encoder(encoder, tmp_path / "model", SubModel(1, 8), overwrite=True)
    assert load_encoder(tmp_path / "model").num_layers == 1


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("transformers.modeling_utils.safe_save_file", SafetensorError("I/O error: No space (os error 28)")),
        ("embedtrain.model.folder.export.write_contract", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_a_full_disk_leaves_no_half_model(tiny_bert, tmp_path, monkeypatch, place, error):
    def full(*_args: object, **_settings: object) -> None:
        raise error

    encoder = trained(tiny_bert)
    monkeypatch.setattr(place, full)
    with pytest.raises(InputError, match=r"cannot save to .*/model: the disk is full"):
        save_encoder(encoder, tmp_path / "model", SubModel(2, 8))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    save_encoder(encoder, tmp_path / "model", SubModel(2, 8))
    assert load_encoder(tmp_path / "model").num_layers == 2


def test_a_pooling_of_ones_own_is_not_passed_off_as_another(tiny_bert, tmp_path):
    encoder = trained(tiny_bert)
    encoder.pooling = type("Odd", (type(encoder.pooling),), {"name": "odd"})()
    with pytest.raises(InputError, match=r"pooling 'odd' is none of cls, .* a saved folder can hold"):
        save_encoder(encoder, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_plain_folder_gets_the_mean_and_says_so(tiny_bert, caplog):
    with caplog.at_level(logging.INFO):
        encoder = load_encoder(tiny_bert)
    assert "does not say how to pool: taking the mean" in caplog.text
    assert encoder.pooling.name == "mean"
    assert encoder.normalize
    assert encoder.max_length == 64
    assert encoder.trained == ()
    assert not any(part.training for part in encoder.modules())


def st_folder(source: Path, target: Path, **changes: object) -> Path:
    """A sentence-transformers folder written by sentence-transformers itself."""
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    mode, include = changes.get("pooling_mode", "cls"), changes.get("include_prompt", True)
    modules = [
        Transformer(str(source), max_seq_length=9),
        Pooling(32, pooling_mode=mode, include_prompt=include),
    ]
    modules += [Normalize()] if changes.get("normalize", True) else []
    SentenceTransformer(modules=modules, device="cpu", prompts=changes.get("prompts")).save(str(target))
    return target


@pytest.mark.parametrize("normalize", [True, False])
def test_a_folder_of_sentence_transformers_six_is_read(tiny_bert, tmp_path, sentences, normalize):
    path = st_folder(tiny_bert, tmp_path / "st", normalize=normalize)
    encoder = load_encoder(path)
    assert (encoder.pooling.name, encoder.max_length, encoder.normalize) == ("cls", 9, normalize)
    embeddings = encoder.encode(sentences, (4,))
    expected = embeddings.at(SubModel(4, 32)) if normalize else embeddings.values[0]
    torch.testing.assert_close(oracle(path, sentences), expected, rtol=0, atol=1e-5)
    save_encoder(encoder, tmp_path / "again")
    torch.testing.assert_close(oracle(tmp_path / "again", sentences), expected, rtol=0, atol=1e-5)
    given = load_encoder(path, pooling="mean", max_length=5, normalize=True)
    assert (given.pooling.name, given.max_length, given.normalize) == ("mean", 5, True)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("cls", "cls"),
        ("max", "max"),
        ("mean", "mean"),
        ("weightedmean", "weighted_mean"),
        ("lasttoken", "eos"),
    ],
)
def test_poolings_and_prompts_of_their_folders_are_read(tiny_bert, tmp_path, sentences, mode, name, include):
    prompts = {"query": "the word: ", "document": ""}
    path = st_folder(tiny_bert, tmp_path / "st", pooling_mode=mode, include_prompt=include, prompts=prompts)
    if mode == "weightedmean" and not include:
        with pytest.raises(InputError, match="leaves prompts out of a weighted mean but counts their tokens"):
            load_encoder(path)
        return
    encoder = load_encoder(path)
    assert (encoder.pooling.name, encoder.process.include_prompt) == (name, include)
    assert encoder.process.prompts == {"query": "the word: "}
    assert_shipped(path, encoder, sentences, SubModel(4, 32))


def edited(source: Path, target: Path, name: str, change: object) -> Path:
    shutil.copytree(source, target)
    value = json.loads((target / name).read_text())
    (target / name).write_text(json.dumps(change(value)))
    return target


@pytest.fixture(scope="module")
def saved(tiny_bert, tmp_path_factory) -> Path:
    return save_encoder(trained(tiny_bert), tmp_path_factory.mktemp("saved") / "model")


def test_old_names_and_keys_are_read(saved, tmp_path, sentences):
    entries = json.loads((saved / "modules.json").read_text())
    assert entries[1]["type"] == "sentence_transformers.models.Pooling"
    plain = shutil.copytree(saved, tmp_path / "old")
    (plain / "embedtrain.json").unlink()
    assert torch.equal(
        load_encoder(plain).encode(sentences, (4,)).values, load_encoder(saved).encode(sentences, (4,)).values
    )
    assert load_encoder(plain).trained == ()


def test_a_module_we_do_not_have_is_named(saved, tmp_path):
    extra = {"idx": 3, "name": "3", "path": "3_LSTM", "type": "sentence_transformers.models.LSTM"}
    path = edited(saved, tmp_path / "a", "modules.json", lambda entries: [*entries, extra])
    with pytest.raises(InputError, match=r"modules\.json has a module 'sentence_transformers\.models\.LSTM'"):
        load_encoder(path)
    own = extra | {"type": "my_code.Pooling"}
    path = edited(saved, tmp_path / "b", "modules.json", lambda entries: [*entries, own])
    with pytest.raises(InputError, match=r"module 'my_code\.Pooling', which embedtrain does not read"):
        load_encoder(path)
    path = edited(saved, tmp_path / "c", "modules.json", lambda entries: entries[:1])
    with pytest.raises(InputError, match=r"must list Transformer, Pooling and perhaps some .* got \['Trans"):
        load_encoder(path)
    path = edited(saved, tmp_path / "d", "modules.json", lambda entries: {})
    with pytest.raises(InputError, match="must list Transformer"):
        load_encoder(path)


def test_a_truncation_without_our_contract_is_the_width(saved, tmp_path):
    save_encoder(load_encoder(saved), tmp_path / "cut", SubModel(1, 8))
    (tmp_path / "cut" / "embedtrain.json").unlink()
    encoder = load_encoder(tmp_path / "cut")
    assert (encoder.pooling.name, encoder.width) == ("mean", 8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling_mode": "splade"}, "asks for pooling splade, which embedtrain does not have; it has cls,"),
        ({"pooling_mode": ["cls", "odd"]}, r"asks for pooling odd, which embedtrain does not have"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_odd_tokens": True}, r"asks for pooling odd, which"),
    ],
)  # fmt: skip
def test_a_pooling_we_do_not_have_is_refused_but_can_be_replaced(saved, tmp_path, config, message):
    path = edited(saved, tmp_path / "a", "1_Pooling/config.json", lambda _: config)
    with pytest.raises(InputError, match=message):
        load_encoder(path)
    assert load_encoder(path, pooling="cls").pooling.name == "cls"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", r"model has no weights \(model\.safetensors\), so it is not a whole model"),
        ("config.json", r"model has no config\.json"),
        ("1_Pooling/config.json", r"1_Pooling/config\.json is missing"),
    ],
)
def test_a_missing_file_is_named(saved, tmp_path, name, message):
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(InputError, match=message):
        load_encoder(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("modules.json", "{oops", r"modules\.json cannot be read .JSONDecodeError"),
        ("modules.json", "[{}]", r"modules\.json is not a list of modules"),
        ("embedtrain.json", "{oops", r"embedtrain\.json cannot be read .JSONDecodeError: .*line 1"),
        ("embedtrain.json", "[]", r"embedtrain\.json must hold a JSON object"),
        ("embedtrain.json", "{}", r"embedtrain\.json is not a contract this version of embedtrain reads"),
        ("1_Pooling/config.json", "", r"config\.json cannot be read .JSONDecodeError"),
    ],
)
def test_a_broken_file_is_named(saved, tmp_path, name, text, message):
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / name).write_text(text)
    with pytest.raises(InputError, match=message):
        load_encoder(tmp_path / "model")


def test_lower_casing_that_only_sentence_transformers_knows_of_is_kept(saved, tmp_path, sentences):
    def lower_off(tokenizer: dict) -> dict:
        tokenizer["normalizer"]["lowercase"] = False
        return tokenizer

    path = edited(saved, tmp_path / "a", "tokenizer.json", lower_off)
    (path / "embedtrain.json").unlink()
    shouting = tuple(text.upper() for text in sentences)
    assert not torch.equal(
        load_encoder(path).process(shouting, "query").values,
        load_encoder(saved).process(sentences, "query").values,
    )
    settings = json.loads((path / "sentence_bert_config.json").read_text())
    (path / "sentence_bert_config.json").write_text(json.dumps(settings | {"do_lower_case": True}))
    encoder = load_encoder(path)
    assert torch.equal(
        encoder.process(shouting, "query").values, load_encoder(saved).process(sentences, "query").values
    )
    save_encoder(encoder, tmp_path / "again")
    expected = encoder.encode(shouting, (4,)).at(SubModel(4, 32))
    for folder in (path, tmp_path / "again"):
        torch.testing.assert_close(oracle(folder, shouting), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_prompts_of_a_sentence_transformers_folder_are_added(saved, tmp_path, sentences, name):
    prompts = {"query": "the word: ", name: "a dog: ", "STS": "cat "}
    file = "config_sentence_transformers.json"
    path = edited(saved, tmp_path / "a", file, lambda config: config | {"prompts": prompts})
    (path / "embedtrain.json").unlink()
    encoder = load_encoder(path)
    assert encoder.process.prompts == {"query": "the word: ", "document": "a dog: ", "STS": "cat "}
    for role, prompt in (("query", "query"), ("document", name)):
        found = shipped(path, sentences, None, prompt_name=prompt)
        expected = encoder.encode(sentences, (4,), role).at(SubModel(4, 32))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_weights_hash_is_that_of_every_process_and_feels_every_change(processes, saved):
    encoder = load_encoder(saved)
    first = weights_hash(encoder)
    assert processes.result(Path(__file__), "hash_of", saved) == first
    assert len(first) == 40
    encoder.train()
    assert weights_hash(encoder) == first
    with torch.no_grad():
        next(encoder.backbone.model.encoder.layer[0].parameters())[0, 0] += 1e-3
    assert weights_hash(encoder) != first
    assert weights_hash(load_encoder(saved, pooling="cls")) != first
    assert weights_hash(load_encoder(saved, max_length=9)) != first


def test_bfloat16_is_saved_as_such(saved, tmp_path, sentences):
    encoder = load_encoder(saved, dtype="bfloat16")
    assert encoder.encode(sentences, (2,)).values.dtype == torch.float32
    save_encoder(encoder, tmp_path / "small", SubModel(2, 16))
    contract = read_contract(tmp_path / "small")
    assert contract is not None
    assert contract.dtype == "bfloat16"
    assert shipped(tmp_path / "small", sentences).dtype == torch.bfloat16
    assert_shipped(tmp_path / "small", encoder, sentences, SubModel(2, 16), atol=0.02)


def test_no_length_of_an_older_call_is_shipped(tiny_bert, tmp_path):
    old = {"max_length": 9, "stride": 0, "truncation_strategy": "longest_first"}
    source = edited(tiny_bert, tmp_path / "old", "tokenizer_config.json", lambda config: config | old)
    save_encoder(load_encoder(source, max_length=20), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 20
    assert not old.keys() & config.keys()


def test_widths_of_a_source_are_not_those_of_an_export(tiny_bert, tmp_path):
    save_encoder(trained(tiny_bert), tmp_path / "whole")
    again = load_encoder(tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["matryoshka_dimensions"] == [32]
    again.trained = ()
    save_encoder(again, tmp_path / "plain")
    assert "is_matryoshka" not in json.loads((tmp_path / "plain" / "config.json").read_text())


def test_code_of_a_folder_is_refused_with_what_to_choose(tiny_bert, tmp_path):
    own = {"model_type": "new", "auto_map": {"AutoModel": "someone/impl--modeling.NewModel"}}
    path = edited(tiny_bert, tmp_path / "new", "config.json", lambda config: config | own)
    with pytest.raises(
        InputError, match=r"'new', .* code of its own \(auto_map\)\. .* choose one of .* bert"
    ):
        load_encoder(path)
