"""A run of the masked step: texts alone, exact resume, the same on two ranks, no head in what is saved."""

import json

import pytest
from processes import finish
from safetensors.torch import load_file
from small_runs import (
    StopAfter,
    StopError,
    assert_close_weights,
    assert_equal_bits,
    lines_of,
    train,
    weights,
    without,
)

from embedtrain.types import InputError


@pytest.fixture
def words(small_run, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"cat {n} sleeps in the house"}) + "\n" for n in range(40)))
    kept = without(small_run, "data.train", "plan.pairs")
    return [*kept, f"data.train={texts}", f"output_root={tmp_path}", "trainer.max_steps=4",
            "trainer.accelerator=cpu", "data.validation_rows=6", "trainer.val_check_interval=2"]  # fmt: skip


MASKED = ["step=masked", "plan=full", "trainer.checkpoint_every_n_steps=1"]


def test_stopping_changes_nothing_and_the_head_is_not_shipped(words, tmp_path):
    train([*words, *MASKED, "name=whole"])
    with pytest.raises(StopError):
        train([*words, *MASKED, "name=stopped"], StopAfter(3))
    train([*words, *MASKED, "name=stopped"])
    expected = weights(tmp_path / "whole")
    assert_equal_bits(weights(tmp_path / "stopped"), expected)
    assert lines_of(tmp_path / "stopped") == lines_of(tmp_path / "whole")
    assert any(name.startswith("checkpoint.owned.") for name in expected)
    published = load_file(tmp_path / "whole/model/model.safetensors")
    assert {name.partition(".")[0] for name in published} == {"embeddings", "encoder", "pooler"}
    assert any("val/accuracy_L4_D32" in row for row in lines_of(tmp_path / "whole"))


def test_two_ranks_train_like_one(processes, words, calm, tmp_path):
    given = [*without(words, "backbone.path"), *MASKED, f"backbone.path={calm}"]
    two = processes.ranks("train", [*given, "name=two", "trainer.devices=2"])
    finish(*two, processes.command("train", [*given, "name=one"]))
    for mine, theirs in zip(lines_of(tmp_path / "two"), lines_of(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    assert_close_weights(tmp_path / "two", tmp_path / "one")


def test_texts_alone_are_no_pairs(words):
    with pytest.raises(InputError, match="a training row is a text alone, and contrastive"):
        train([*words, "name=pairs"])
