import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from embedtrain.model.folder.contract import FORMAT, read_contract, special_tokens, tokenizer_hash
from embedtrain.model.folder.describe import weights_hash
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.inputs.special_tokens import with_end_token
from embedtrain.types import InputError, SubModel

PROMPTS = {"query": "the word: ", "document": "a dog: ", "STS": "cat: "}


@pytest.fixture(scope="module")
def saved(tiny_llama, tmp_path_factory) -> Path:
    """A cut of a bidirectional decoder with every field set to other than its default."""
    encoder = load_encoder(
        tiny_llama,
        pooling="last_layer",
        attention="bidirectional",
        prompts=PROMPTS,
        include_prompt=False,
        append_eos=True,
        padding_side="left",
        max_length=20,
    )
    encoder.trained = (SubModel(2, 16),)
    return save_encoder(encoder, tmp_path_factory.mktemp("contract") / "model", SubModel(2, 16))


def test_every_field_comes_back(saved):
    contract = read_contract(saved)
    assert contract is not None
    encoder = load_encoder(saved)
    process = encoder.process
    assert (process.prompts, process.include_prompt, process.padding_side) == (PROMPTS, False, "left")
    assert (encoder.max_length, encoder.width, encoder.num_layers) == (20, 16, 2)
    assert encoder.backbone.attention == contract.attention == "bidirectional"
    assert contract.special_tokens == (("<s>",), ("</s>",))
    assert encoder.process(["a cat"], "document").values[0, -1] == process.tokenizer.eos_token_id
    assert encoder.pooling.settings() == contract.pooling_settings
    assert contract.pooling_settings["source"] == "tokens"
    assert encoder.trained == (SubModel(2, 16),)


def changed(saved: Path, place: Path, name: str, change) -> Path:
    shutil.copytree(saved, place)
    value = json.loads((place / name).read_text("utf-8"))
    change(value)
    (place / name).write_text(json.dumps(value), "utf-8")
    return place


def set_to(key, value):
    return lambda content: content.update({key: value})


def without_end(tokenizer: dict) -> None:
    for role in ("single", "pair"):
        tokenizer["post_processor"][role] = [
            part
            for part in tokenizer["post_processor"][role]
            if part.get("SpecialToken", {}).get("id") != "</s>"
        ]


MODULE, ST = "1_StatePooling/config.json", "config_sentence_transformers.json"
CHANGES = [
    ("config.json", set_to("is_causal", True),
     r"says attention is 'bidirectional' but the folder has 'causal'"),
    ("config.json", set_to("dtype", "float16"), r"says dtype is 'float32' but the folder has 'float16'"),
    (MODULE, set_to("pooling", "latent_attention"),
     r"says pooling is 'last_layer' but .* 'latent_attention'"),
    (MODULE, lambda config: config["settings"].update(heads=4),
     r"says pooling_settings is \{.*'heads': 8.*'heads': 4"),
    (MODULE, set_to("include_prompt", True), r"says pool_prompt is False but the folder has True"),
    (ST, set_to("prompts", {}), r"says prompts is \{'query': 'the word: ', .*\} but the folder has \{\}"),
    (ST, lambda config: config["prompts"].update(query="q: "), r"says prompts is .* but .*'query': 'q: '"),
    ("sentence_bert_config.json", set_to("max_seq_length", 64),
     r"says max_length is 20 but the folder has 64"),
    ("modules.json", lambda entries: entries.pop(), r"says normalize is True but the folder has False"),
    ("2_Dense/config.json", set_to("out_features", 8), r"says width is 16 but the folder has 8"),
    ("tokenizer.json", without_end,
     r"says special_tokens is .*'</s>'.* but the folder has .*\('<s>',\), \(\)\)"),
    ("tokenizer_config.json", set_to("padding_side", "right"), r"says padding_side is 'left' but .* 'right'"),
    ("tokenizer.json", lambda content: content.update(normalizer=None), r"says tokenizer_hash is '\w+' but"),
    ("embedtrain.json", set_to("num_layers", 3), r"says num_layers is 3 but the folder has 2"),
    ("embedtrain.json", set_to("width", 8), r"says width is 8 but the folder has 16"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change", "message"), CHANGES, ids=[message[6:24] for *_, message in CHANGES]
)
def test_a_change_of_the_folder_is_named_by_field_with_both_values(saved, tmp_path, name, change, message):
    path = changed(saved, tmp_path / "changed", name, change)
    with pytest.raises(InputError, match=message):
        load_encoder(path)


@pytest.mark.parametrize("found", [1, FORMAT + 1, None])
def test_a_contract_of_another_version_is_refused(saved, tmp_path, found):
    def other(content: dict) -> None:
        content.pop("format") if found is None else content.update(format=found)

    path = changed(saved, tmp_path / "old", "embedtrain.json", other)
    message = (
        rf"not a contract this version of embedtrain reads \(its format is {found or 1}, this version reads"
    )
    with pytest.raises(InputError, match=message):
        load_encoder(path)


def test_a_contract_with_strange_fields_is_refused(saved, tmp_path):
    path = changed(saved, tmp_path / "a", "embedtrain.json", set_to("colour", "red"))
    with pytest.raises(InputError, match=r"not a contract this version .*colour"):
        load_encoder(path)
    path = changed(saved, tmp_path / "b", "embedtrain.json", lambda content: content.pop("attention"))
    with pytest.raises(InputError, match=r"not a contract this version .*attention"):
        load_encoder(path)


def test_every_setting_that_decides_an_embedding_is_in_the_hash(saved):
    settings = [
        {}, {"pooling": "mean"}, {"attention": "causal"}, {"prompts": {}},
        {"prompts": PROMPTS | {"query": "q: "}}, {"include_prompt": True}, {"padding_side": "right"},
        {"max_length": 9}, {"normalize": False}, {"dtype": torch.float64},
    ]  # fmt: skip
    hashes = [weights_hash(load_encoder(saved, **setting)) for setting in settings]
    assert len(set(hashes)) == len(settings)
    assert weights_hash(load_encoder(saved)) == hashes[0]


def test_an_appended_end_token_is_in_the_hash_of_the_tokenizer(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    ending = with_end_token(tokenizer)
    assert special_tokens(tokenizer) == (("<s>",), ())
    assert special_tokens(ending) == (("<s>",), ("</s>",))
    assert tokenizer_hash(ending) != tokenizer_hash(tokenizer)


def test_an_end_token_that_is_missing_is_named(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("eos_token")
    path.write_text(json.dumps(config))
    assert load_encoder(tmp_path / "model", pooling="mean").process.append_eos is False
    with pytest.raises(InputError, match="needs an end token; this tokenizer has none"):
        load_encoder(tmp_path / "model", pooling="eos")


@pytest.mark.parametrize(("found", "expected"), [(3, ".../mine/model"), (FORMAT, "mine/model")])
def test_an_older_source_is_not_passed_off_as_a_name_of_the_hub(saved, tmp_path, found, expected):
    """Formats 2 and 3 had the last two names of a local folder there."""
    path = changed(saved, tmp_path / "model", "embedtrain.json", set_to("source", "mine/model"))
    changed(path, tmp_path / "older", "embedtrain.json", set_to("format", found))
    assert read_contract(tmp_path / "older").source == expected
