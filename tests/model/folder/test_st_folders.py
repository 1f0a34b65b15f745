"""Folders that sentence-transformers wrote: the whole model exported unchanged gives the same `encode()`."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from torch import nn

from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import InputError, SubModel

KINDS = {
    "dense": lambda: [Pooling(32, "cls"), Dense(32, 16), Normalize()],
    "two denses": lambda: [
        Pooling(32, "mean"),
        Dense(32, 48, bias=False, activation_function=nn.Identity()),
        Dense(48, 32, activation_function=nn.GELU(), use_residual=True),
        Normalize(),
    ],
    "truncation that cuts nothing": lambda: [Pooling(32, "mean"), Normalize()],
    "root of length": lambda: [Pooling(32, "mean_sqrt_len_tokens")],
    "concat": lambda: [Pooling(32, ("cls", "max", "lasttoken")), Normalize()],
    "concat in an order of its own": lambda: [Pooling(32, ("mean", "cls")), Dense(64, 24)],
    "normalised before": lambda: [Pooling(32, "mean"), Normalize(), Dense(32, 16), LayerNorm(16)],
}

SETTINGS = {"truncation that cuts nothing": {"truncate_dim": 64}}


def written(folder: Path, source: Path, modules: list[nn.Module], **settings: object) -> Path:
    transformer = Transformer(str(source), max_seq_length=20)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for module in modules:
            for parameter in module.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
    made = SentenceTransformer(modules=[transformer, *modules], device="cpu", **settings)
    made.save(str(folder))
    return folder


def encoded(folder: Path, texts, name: str = "encode") -> torch.Tensor:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return getattr(model, name)(list(texts), convert_to_tensor=True, show_progress_bar=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_folder_comes_back_as_it_was(tiny_bert, tmp_path, sentences, kind):
    torch.manual_seed(2)
    path = written(tmp_path / "st", tiny_bert, KINDS[kind](), **SETTINGS.get(kind, {}))
    encoder = load_encoder(path)
    expected = encoded(path, sentences)
    assert encoder.width == expected.shape[1]
    found = encoder.encode(sentences, (4,))
    own = found.at(SubModel(4, encoder.width)) if encoder.normalize else found.values[0]
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)
    save_encoder(encoder, tmp_path / "again")
    torch.testing.assert_close(encoded(tmp_path / "again", sentences), expected, rtol=0, atol=1e-5)
    again = load_encoder(tmp_path / "again").encode(sentences, (4,))
    torch.testing.assert_close(again.values, found.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "concat in an order of its own"])
def test_a_cut_has_what_follows_the_pooling(tiny_bert, tmp_path, sentences, kind):
    torch.manual_seed(2)
    encoder = load_encoder(written(tmp_path / "st", tiny_bert, KINDS[kind]()))
    sub = SubModel(2, 8)
    expected = encoder.encode(sentences, (2,)).at(sub)
    save_encoder(encoder, tmp_path / "cut", sub)
    torch.testing.assert_close(encoded(tmp_path / "cut", sentences), expected, rtol=0, atol=1e-5)
    again = load_encoder(tmp_path / "cut")
    assert (again.num_layers, again.width) == sub
    torch.testing.assert_close(again.encode(sentences, (2,)).at(sub), expected, rtol=0, atol=1e-6)


def test_what_follows_the_pooling_is_trained(tiny_bert, tmp_path, sentences):
    torch.manual_seed(2)
    encoder = load_encoder(written(tmp_path / "st", tiny_bert, KINDS["dense"]()))
    encoder(encoder.process(sentences, "query"), (2, 4)).values.sum().backward()
    gradients = [value.grad for value in encoder.pooling.parameters()]
    assert len(gradients) == 2
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_default_prompt_and_truncation_are_kept_and_said(tiny_bert, tmp_path, sentences, caplog):
    settings = {"prompts": {"query": "the word: ", "document": "a red: "}, "default_prompt_name": "document"}
    path = written(tmp_path / "st", tiny_bert, [Pooling(32, "mean")], truncate_dim=16, **settings)
    with caplog.at_level(logging.INFO):
        encoder = load_encoder(path)
    assert "truncate_dim 16 is the widest that vectors are" in caplog.text
    assert "default_prompt_name 'document' is kept" in caplog.text
    save_encoder(encoder, tmp_path / "again")
    for name in ("encode", "encode_query", "encode_document"):
        found, expected = encoded(tmp_path / "again", sentences, name), encoded(path, sentences, name)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    own = encoder.encode(sentences, (4,), "query").values[0]
    torch.testing.assert_close(own, encoded(path, sentences, "encode_query"), rtol=0, atol=1e-5)
    again = load_encoder(tmp_path / "again")
    assert (again.process.default_prompt, again.width) == ("document", 16)
    assert load_encoder(path, prompts={"query": "x"}).process.default_prompt is None


def test_the_prompt_of_passages_is_that_of_documents_and_said(tiny_bert, tmp_path, caplog):
    settings = {"prompts": {"query": "the word: ", "passage": "a red: "}, "default_prompt_name": "passage"}
    path = written(tmp_path / "st", tiny_bert, [Pooling(32, "mean")], **settings)
    with caplog.at_level(logging.INFO):
        process = load_encoder(path).process
    assert process.prompts == {"query": "the word: ", "document": "a red: "}
    assert process.default_prompt == "document"
    assert "the prompt 'passage' is read as that of a document" in caplog.text


def test_what_is_not_read_is_named(tiny_bert, tmp_path, caplog):
    path = written(tmp_path / "st", tiny_bert, [Pooling(32, "mean"), Dropout(0.1)], similarity_fn_name="dot")
    changes = {
        "config_sentence_transformers.json": {"odd_key": 1},
        "sentence_bert_config.json": {"query_length": 9, "query_expansion": None},
        "1_Pooling/config.json": {"weights": [1]},
    }
    for name, keys in changes.items():
        (path / name).write_text(json.dumps(json.loads((path / name).read_text()) | keys))
    load_encoder(path)
    for said in (
        "read odd_key",
        "read query_length",
        "read weights",
        "leaves Dropout",
        "similarity_fn_name dot",
    ):
        assert said in caplog.text
    caplog.clear()
    load_encoder(written(tmp_path / "plain", tiny_bert, [Pooling(32, "mean"), Normalize()]))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"activation_function": "my_code.Act"},
            r"activation_function 'my_code\.Act', which embedtrain does",
        ),
        (
            {"module_input_name": "token_embeddings"},
            r"module_input_name 'token_embeddings'; embedtrain reads",
        ),
    ],
)
def test_a_dense_of_another_kind_is_refused(tiny_bert, tmp_path, change, message):
    path = written(tmp_path / "st", tiny_bert, KINDS["dense"]())
    file = path / "2_Dense" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_encoder(path)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("1_Pooling/config.json", "include_prompt"),
        ("1_Pooling/config.json", "pooling_mode_max_tokens"),
        ("2_Dense/config.json", "bias"),
        ("2_Dense/config.json", "use_residual"),
        ("sentence_bert_config.json", "do_lower_case"),
    ],
)
def test_a_word_where_true_or_false_belongs_is_refused(tiny_bert, tmp_path, file, key):
    path = written(tmp_path / "st", tiny_bert, KINDS["dense"]())
    said = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps(said | {key: "no"}))
    with pytest.raises(InputError, match=f"{key} is 'no': write true or false"):
        load_encoder(path)
    (path / file).write_text(json.dumps(said | {key: False}))
    assert key == "bias" or load_encoder(path)


def test_a_pooling_that_is_given_replaces_what_follows_it(tiny_bert, tmp_path, caplog):
    path = written(tmp_path / "st", tiny_bert, KINDS["dense"]())
    encoder = load_encoder(path, pooling="mean")
    assert (encoder.pooling.name, encoder.width) == ("mean", 32)
    assert "replaces what follows it too: 2_Dense" in caplog.text


@pytest.mark.parametrize("pooling", ["mean", "latent_attention"])
@pytest.mark.parametrize("over", [True, False])
def test_what_was_trained_elsewhere_comes_back(tiny_bert, tmp_path, sentences, pooling, over):
    """Saved by sentence-transformers after training, over our export or in another folder."""
    encoder = load_encoder(tiny_bert, pooling=pooling, prompts={"query": "the word: "}, max_length=20)
    cut = save_encoder(encoder, tmp_path / "cut", SubModel(2, 16))
    own_code = pooling != "mean"
    model = SentenceTransformer(str(cut), device="cpu", trust_remote_code=own_code)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    target = cut if over else tmp_path / "elsewhere"
    model.save(str(target))
    found = load_encoder(target)
    assert found.width == 16
    assert found.process.prompts == {"query": "the word: "}
    expected = model.encode_query(list(sentences), convert_to_tensor=True)
    own = found.encode(sentences, (2,), "query").at(SubModel(2, 16))
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)
    save_encoder(found, tmp_path / "again")
    torch.testing.assert_close(
        load_encoder(tmp_path / "again").encode(sentences, (2,), "query").at(SubModel(2, 16)),
        expected,
        rtol=0,
        atol=1e-5,
    )


def test_adapters_of_sentence_transformers_and_of_peft_alone_are_read(tiny_bert, tmp_path, sentences):
    from peft import LoraConfig, TaskType

    base = written(tmp_path / "base", tiny_bert, [Pooling(32, "cls"), Normalize()])
    model = SentenceTransformer(str(base), device="cpu")
    targets = ["query", "value"]
    model.add_adapter(LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=4, target_modules=targets))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.5)
    model.save(str(tmp_path / "adapted"))
    expected = model.encode(list(sentences), convert_to_tensor=True)
    encoder = load_encoder(tmp_path / "adapted")
    assert encoder.pooling.name == "cls"
    assert all("lora_" in name for name, value in encoder.backbone.named_parameters() if value.requires_grad)
    torch.testing.assert_close(
        encoder.encode(sentences, (4,)).at(SubModel(4, 32)), expected, rtol=0, atol=1e-5
    )
    save_encoder(encoder, tmp_path / "merged")
    torch.testing.assert_close(encoded(tmp_path / "merged", sentences), expected, rtol=0, atol=1e-5)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "adapted" / name, alone)
    again = load_encoder(alone).encode(sentences, (4,)).at(SubModel(4, 32))
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-5)
    shutil.move(base, tmp_path / "moved")
    with pytest.raises(InputError, match=r"adapted needs the model its adapters belong to: .* as base="):
        load_encoder(tmp_path / "adapted")
    assert load_encoder(tmp_path / "adapted", base=tmp_path / "moved").pooling.name == "cls"
