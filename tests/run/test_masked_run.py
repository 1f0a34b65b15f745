"""Runs on texts alone, of every step: exact resume, validation, no head or decoder in what is saved."""

import pytest
import torch
from safetensors.torch import load_file
from small_runs import assert_same_run, lines_of, train, train_stopped, weights, without, write_rows

from embedtrain.settings.stages import OF_TEXTS
from embedtrain.types import InputError

MORE = """trainer.max_steps=4 trainer.val_check_interval=2 trainer.accumulate_grad_batches=2 data.batch_size=4
    trainer.checkpoint_every_n_steps=1 backbone.max_length=12"""


@pytest.fixture
def words(small_run, tmp_path):
    """A run on texts longer than the model reads, so that windows are drawn."""
    texts = [f"cat {n} sleeps in the house by the river with a small blue bird and a dog" for n in range(40)]
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / f"texts/{number}.md").write_text(f"# About {number}\n\n{text}\n", "utf-8")
    given = without(small_run, "plan.pairs", "data.train", "data.batch_size")
    return [*given, *MORE.split(), f"data.train={tmp_path}/texts", f"output_root={tmp_path}"]


@pytest.mark.parametrize("step", OF_TEXTS)
def test_stopping_changes_nothing_and_no_head_is_shipped(words, tmp_path, step):
    words += [f"step={step}", "plan.pairs=[[1,8],[4,32]]", "data.validation_rows=6"]
    train([*words, "name=whole"])
    train_stopped([*words, "name=stopped"], 3)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    assert any(name.startswith("checkpoint.owned.") for name in weights(tmp_path / "whole"))
    published = load_file(tmp_path / "whole/model/model.safetensors")
    assert {name.partition(".")[0] for name in published} == {"embeddings", "encoder", "pooler"}
    lines = lines_of(tmp_path / "whole")
    metric = "bow_recall" if step == "masked_bow" else "accuracy"
    assert any(f"val/{metric}_L4_D32" in row for row in lines)
    losses = [row["train/loss"] for row in lines if "train/loss" in row]
    assert len(losses) == 4
    if step not in ("masked", "tsdae"):
        assert all(row["train/masked"] > 0 for row in lines if "train/loss" in row)
    moved = weights(tmp_path / "whole")
    state = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)
    groups = state["optimizer_states"][0]["param_groups"]
    gates = [] if step == "masked" else [False]  # it does not pool
    assert [group["weight_decay"] > 0 for group in groups] == [True, False, *gates]
    assert sum(len(group["params"]) for group in groups) <= len(moved)


def test_bfloat16_and_gradient_checkpointing(words, tmp_path):
    """Losses stay near those of float32, with every block computed again in backward."""
    for step in OF_TEXTS:
        given = [*without(words, "trainer.precision"), f"step={step}", "plan.pairs=[[1,8],[4,32]]"]
        given += ["trainer.max_steps=2", "backbone.gradient_checkpointing=true"]
        found = []
        for precision in ("32-true", "bf16-mixed"):
            name = f"{step}_{precision[:2]}"
            train([*given, f"name={name}", f"trainer.precision={precision}"])
            found.append([row["train/loss"] for row in lines_of(tmp_path / name) if "train/loss" in row])
        assert found[0] == pytest.approx(found[1], rel=0.03), step


def test_simcse_trains_on_texts_and_goes_on_where_it_stopped(words, tmp_path):
    words += ["step=simcse", "plan.pairs=[[1,8],[4,32]]", "gradcache=chunks", "gradcache.max_tokens=32"]
    train([*words, "name=whole"])
    train_stopped([*words, "name=stopped"], 3)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    with pytest.raises(InputError, match="a validation row is a text alone"):
        train([*words, "name=validated", "data.validation_rows=4"])


def test_texts_alone_are_no_pairs(words):
    with pytest.raises(InputError, match="a training row is a text alone, and contrastive"):
        train([*words, "name=pairs"])


def test_a_vector_wider_than_the_states_is_refused(words, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": f"cat {n}"} for n in range(8)])
    wide = ["pooling=concat", "pooling.of=cls+mean", "plan=full", f"data.train={rows}", "name=wide"]
    with pytest.raises(InputError, match=r"step=smae predicts from at most 32 coordinates.*the plan has 64"):
        train([*without(words, "data.train"), *wide, "step=smae"])
