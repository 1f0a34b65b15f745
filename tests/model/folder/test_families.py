"""Cuts of encoders that keep their blocks in other ways than BERT, as sentence-transformers loads them."""

import json
from pathlib import Path

import pytest
import torch
from shipped import assert_shipped
from tiny_models import tiny_config, tiny_model
from transformers import PreTrainedTokenizerFast

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.freezing import freeze
from embedtrain.model.folder.describe import parameter_count
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import InputError, SubModel

KINDS = {"albert": {}, "deberta-v2": {"position_biased_input": False}, "gpt2": {}, "t5": {}}


def written(folder: Path, tiny_bert: Path, kind: str, **changes: object) -> Path:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_bert)
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
    tiny_model(tiny_config(kind, **size, **changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=KINDS)
def folder(request, tiny_bert, tmp_path) -> Path:
    return written(tmp_path / "source", tiny_bert, request.param, **KINDS[request.param])


def test_a_cut_in_sentence_transformers_is_the_trained_embedding(folder, tmp_path, sentences):
    encoder = load_encoder(folder, max_length=20)
    for sub in (SubModel(2, 16), SubModel(4, 32)):
        cut = save_encoder(encoder, tmp_path / str(sub), sub)
        assert_shipped(cut, encoder, sentences, sub)
        expected = encoder.encode(sentences, (1, 2, 4)).at(sub)
        again = load_encoder(cut).encode(sentences, (sub.layer,)).at(sub)
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-6)


def test_every_weight_of_the_blocks_is_trained(folder, sentences):
    encoder = load_encoder(folder, max_length=20)
    encoder(encoder.process(sentences, "query"), (2, 4)).values.square().sum().backward()
    without = [name for name, value in encoder.backbone.model.named_parameters() if value.grad is None]
    assert without == []


def test_shared_blocks_are_counted_once_and_not_frozen_in_part(tiny_bert, tmp_path):
    encoder = load_encoder(written(tmp_path / "a", tiny_bert, "albert"))
    assert encoder.num_layers == 4
    assert parameter_count(encoder, 1) == parameter_count(encoder, 4)
    with pytest.raises(InputError, match="4 blocks of this model have one set of weights"):
        freeze(encoder.backbone, first_blocks=2)


def test_an_albert_of_several_groups_is_refused(tiny_bert, tmp_path):
    path = written(tmp_path / "a", tiny_bert, "albert")
    config = path / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_groups": 1', '"num_hidden_groups": 2'))
    with pytest.raises(InputError, match=r"2 groups of 1 blocks .* no cut can be made"):
        Backbone.load(path)


def test_the_decoder_of_a_pair_is_left_out(tiny_bert, tmp_path):
    path = written(tmp_path / "t5", tiny_bert, "t5")
    save_encoder(load_encoder(path), tmp_path / "cut", SubModel(2, 32))
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["architectures"] == ["T5EncoderModel"]
