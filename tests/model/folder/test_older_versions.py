"""What other versions of sentence-transformers and transformers read of a folder, or refuse."""

import json

import pytest
from tiny_models import tiny_config, tiny_model

from embedtrain.model.folder.cards.card import Story, renew_card
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import SubModel

THETA = {"rope_type": "default", "rope_theta": 50.0}


def saved(tokenizer_of, folder, kind, attention=None, **changes):
    """The folder of a cut of a tiny model of the family."""
    base = folder / f"{kind}-base"
    config = tiny_config(kind, **changes)
    config.vocab_size = max(
        config.vocab_size, json.loads((tokenizer_of / "config.json").read_text())["vocab_size"]
    )
    tiny_model(config).save_pretrained(base)
    for file in tokenizer_of.glob("*token*"):
        (base / file.name).write_bytes(file.read_bytes())
    encoder = load_encoder(base, attention=attention, pooling="mean")
    return save_encoder(encoder, folder / kind, SubModel(2, 16))


@pytest.mark.parametrize(
    ("kind", "rope", "expected"),
    [
        ("llama", THETA, {"rope_theta": 50.0}),
        (
            "llama",
            {"rope_type": "linear", "rope_theta": 50.0, "factor": 2.0},
            {"rope_theta": 50.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        ),
        ("qwen3", THETA, {"rope_theta": 50.0}),
        (
            "gemma3_text",
            {"full_attention": THETA, "sliding_attention": THETA | {"rope_theta": 20.0}},
            {"rope_theta": 50.0, "rope_local_base_freq": 20.0},
        ),
        (
            "modernbert",
            {"full_attention": THETA, "sliding_attention": THETA | {"rope_theta": 20.0}},
            {"global_rope_theta": 50.0, "local_rope_theta": 20.0},
        ),
    ],
)
def test_rotary_positions_are_written_for_transformers_4_too(tiny_llama, tmp_path, kind, rope, expected):
    folder = saved(tiny_llama, tmp_path, kind, rope_parameters=rope)
    config = json.loads((folder / "config.json").read_text())
    assert {key: config[key] for key in expected} == expected
    again = load_encoder(folder).backbone.model.config.rope_parameters
    assert {kind: value for kind, value in again.items() if kind in rope} == rope


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_modernbert", "tiny_llama"])
def test_a_tokenizer_gives_what_the_model_takes(request, tmp_path, kind):
    folder = save_encoder(load_encoder(request.getfixturevalue(kind)), tmp_path / "model")
    names = json.loads((folder / "tokenizer_config.json").read_text())["model_input_names"]
    assert {"input_ids", "attention_mask"} <= set(names)
    if kind != "tiny_bert":
        assert "token_type_ids" not in names, "transformers 4 adds them where no names are said"


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_bidirectional_decoder_is_refused_where_it_would_be_causal(tiny_llama, tmp_path, attention):
    folder = save_encoder(load_encoder(tiny_llama, attention=attention), tmp_path / "model", SubModel(2, 16))
    (first, *_) = json.loads((folder / "modules.json").read_text())
    older = first["type"] == "sentence_transformers.models.Transformer"  # which all versions have
    renew_card(folder, Story())
    says = "sentence-transformers takes the folder from 6.0 on" in (folder / "README.md").read_text()
    assert (older, says) == (attention == "causal", attention == "bidirectional")
    assert load_encoder(folder).backbone.attention == attention
