"""What a run that says nothing of pooling ends with: gates on a mean that trained, and nothing else new."""

import json

import pytest
from small_runs import StopAfter, StopError, command, train, write_rows

from embedtrain.model.folder.export import load_encoder
from embedtrain.model.pooling import Cls, GatedMean, Mean
from embedtrain.types import InputError


@pytest.fixture
def trained(small_run, tmp_path):
    """(more words) -> the encoder that a run of two steps publishes."""

    def run(*more):
        command("train", *small_run, f"output_root={tmp_path}", "name=a", "trainer.max_steps=2", *more)
        return load_encoder(tmp_path / "a/model")

    return run


def test_a_backbone_that_pools_by_the_mean_gets_trained_gates(trained, tmp_path):
    pooling = trained().pooling
    assert isinstance(pooling, GatedMean)
    assert pooling.queries.any(1).tolist() == [True, True, False, True], "the layers of the plan"
    config = json.loads((tmp_path / "a/model/embedtrain.json").read_text("utf-8"))
    assert config["pooling"] == "gated_mean"


def test_without_gates_it_is_the_plain_mean(trained):
    assert isinstance(trained("pooling=own").pooling, Mean)


def test_a_folder_that_pools_otherwise_keeps_that(trained, tiny_bert, tmp_path):
    from embedtrain.model.folder.export import save_encoder

    other = save_encoder(load_encoder(tiny_bert, pooling="cls"), tmp_path / "cls")
    assert isinstance(trained(f"backbone.path={other}").pooling, Cls)


def test_a_step_that_does_not_pool_leaves_the_mean(trained, tmp_path):
    rows = write_rows(tmp_path / "texts.jsonl", [{"text": f"a big red ball {n}"} for n in range(32)])
    assert isinstance(trained("step=masked", f"data.train={rows}").pooling, Mean)


def test_weights_that_were_best_for_a_cut_of_a_step_that_does_not_pool(trained, small_data, tmp_path):
    rows = write_rows(tmp_path / "texts.jsonl", [{"text": f"a big red ball {n}"} for n in range(32)])
    words = "eval_during=sweep eval_during.tasks=[find] eval_during.every=1 eval_during.allow_test=true"
    words += " eval_during.best_per_cut=true"
    words += f" evaluation.data_root={small_data} step=masked data.train={rows} exports=[[2,16]]"
    assert isinstance(trained(*words.split()).pooling, Mean)
    assert isinstance(load_encoder(tmp_path / "a/cut_L2_D16").pooling, Mean)


def test_a_run_without_gates_says_how_to_go_on(small_run, tmp_path):
    words = [*small_run, f"output_root={tmp_path}", "name=a", "trainer.checkpoint_every_n_steps=1"]
    with pytest.raises(StopError):
        train([*words, "pooling=own"], StopAfter(2))
    with pytest.raises(InputError, match=r"Repeat its settings, pooling=own, to continue it"):
        train(words)
    train([*words, "pooling=own"])


def test_the_run_says_once_that_it_has_gates(trained, capsys):
    trained()
    said = "pooling: the mean of the tokens, with trained gates (without them: pooling=own)"
    assert capsys.readouterr().err.count(said) == 1
    trained("pooling=own", "name=b")
    assert "trained gates" not in capsys.readouterr().err
