"""A run of the masked step: texts alone, exact resume, no head in what is saved."""

import pytest
from safetensors.torch import load_file
from small_runs import assert_same_run, lines_of, train, train_stopped, weights, without, write_rows

from embedtrain.types import InputError


@pytest.fixture
def words(small_run, tmp_path):
    texts = write_rows(
        tmp_path / "texts.jsonl", [{"text": f"cat {n} sleeps in the house"} for n in range(40)]
    )
    more = "trainer.max_steps=4 data.validation_rows=6 trainer.val_check_interval=2"
    return [
        *without(small_run, "plan.pairs"),
        *more.split(),
        f"data.train={texts}",
        f"output_root={tmp_path}",
    ]


def test_stopping_changes_nothing_and_the_head_is_not_shipped(words, tmp_path):
    words += ["step=masked", "plan=full", "trainer.checkpoint_every_n_steps=1"]
    train([*words, "name=whole"])
    train_stopped([*words, "name=stopped"], 3)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    assert any(name.startswith("checkpoint.owned.") for name in weights(tmp_path / "whole"))
    published = load_file(tmp_path / "whole/model/model.safetensors")
    assert {name.partition(".")[0] for name in published} == {"embeddings", "encoder", "pooler"}
    assert any("val/accuracy_L4_D32" in row for row in lines_of(tmp_path / "whole"))


def test_texts_alone_are_no_pairs(words):
    with pytest.raises(InputError, match="a training row is a text alone, and contrastive"):
        train([*words, "name=pairs"])
