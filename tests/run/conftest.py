"""A model for runs that are compared over ranks."""

import json

import pytest


@pytest.fixture
def calm(tiny_bert, tmp_path):
    """The same model without dropout, of which each rank draws its own."""
    folder = tmp_path / "calm"
    folder.mkdir()
    for file in tiny_bert.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps({**settings, **none}), "utf-8")
    return folder
