"""Cuts of encoders that keep their blocks in other ways than BERT, as sentence-transformers loads them."""

import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import (
    AlbertConfig,
    DebertaV2Config,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.freezing import freeze
from embedtrain.model.backbone.loading import loader
from embedtrain.model.folder.describe import parameter_count
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import InputError, SubModel

SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
RELATIVE = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_buckets": 8,
    "position_biased_input": False,
    "conv_kernel_size": 3,
    "conv_act": "gelu",
}
CONFIGS = {
    "albert": lambda size: AlbertConfig(**SIZES, embedding_size=16, vocab_size=size),
    "deberta-v2": lambda size: DebertaV2Config(**SIZES, **RELATIVE, vocab_size=size),
    "gpt2": lambda size: GPT2Config(n_embd=32, n_layer=4, n_head=4, vocab_size=size),
    "t5": lambda size: T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=4, num_heads=4, vocab_size=size),
}


def written(folder: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        kind = loader(config)
        model = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=CONFIGS)
def folder(request, tiny_bert, tmp_path) -> Path:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_bert)
    return written(tmp_path / "source", CONFIGS[request.param](len(tokenizer)), tokenizer)


def test_a_cut_in_sentence_transformers_is_the_trained_embedding(folder, tmp_path, sentences):
    encoder = load_encoder(folder, max_length=20)
    for sub in (SubModel(2, 16), SubModel(4, 32)):
        expected = encoder.encode(sentences, (1, 2, 4)).at(sub)
        cut = save_encoder(encoder, tmp_path / str(sub), sub)
        model = SentenceTransformer(str(cut), device="cpu", local_files_only=True)
        found = model.encode(list(sentences), convert_to_tensor=True, show_progress_bar=False)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        again = load_encoder(cut).encode(sentences, (sub.layer,)).at(sub)
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-6)


def test_every_weight_of_the_blocks_is_trained(folder, sentences):
    encoder = load_encoder(folder, max_length=20)
    encoder(encoder.process(sentences, "query"), (2, 4)).values.square().sum().backward()
    without = [name for name, value in encoder.backbone.model.named_parameters() if value.grad is None]
    assert without == []


def test_shared_blocks_are_counted_once_and_not_frozen_in_part(tiny_bert, tmp_path):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_bert)
    encoder = load_encoder(written(tmp_path / "a", CONFIGS["albert"](len(tokenizer)), tokenizer))
    assert encoder.num_layers == 4
    assert parameter_count(encoder, 1) == parameter_count(encoder, 4)
    with pytest.raises(InputError, match="4 blocks of this model have one set of weights"):
        freeze(encoder.backbone, first_blocks=2)


def test_an_albert_of_several_groups_is_refused(tiny_bert, tmp_path):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_bert)
    config = CONFIGS["albert"](len(tokenizer))
    config.num_hidden_groups = 2
    path = written(tmp_path / "a", config, tokenizer)
    with pytest.raises(InputError, match=r"2 groups of 1 blocks .* no cut can be made"):
        Backbone.load(path)


def test_the_decoder_of_a_pair_is_left_out(tiny_bert, tmp_path):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_bert)
    path = written(tmp_path / "t5", CONFIGS["t5"](len(tokenizer)), tokenizer)
    save_encoder(load_encoder(path), tmp_path / "cut", SubModel(2, 32))
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["architectures"] == ["T5EncoderModel"]
