"""Scores while a run trains: they change nothing, decide what is best, end runs, and survive a stop."""

import pytest
import torch
from processes import finish
from pytorch_lightning.loggers.logger import Logger
from safetensors.torch import load_file
from small_runs import StopAfter, StopError, assert_equal_bits, compose, lines_of, write_rows

from embedtrain.files.scores import read_scores
from embedtrain.model.folder.export import load_encoder
from embedtrain.run.publish import publish
from embedtrain.run.run import Run
from embedtrain.training.callbacks.eval_during import MeasureWhileTraining
from embedtrain.training.checkpoints import take_weights
from embedtrain.types import Cell, InputError

SUBS = ["L1_D8", "L2_D16", "L4_D32"]


class FakeLogger(Logger):
    """Keeps what it is given, as wandb would."""

    name, version = "fake", ""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))


@pytest.fixture(scope="session")
def dev_data(tmp_path_factory):
    """An STS set with a dev and a test split, and a ranking."""
    root = tmp_path_factory.mktemp("dev_data")
    words = "cat dog bird fish man woman child sun rain red blue green".split()
    rows = [
        {"sentence1": f"{words[n % 12]} {words[n * 5 % 12]}", "sentence2": f"{words[(n + n % 3) % 12]} runs"}
        | {"score": n % 5}
        for n in range(24)
    ]
    for split in ("dev", "test"):
        write_rows(root / f"sts/mine/{split}.jsonl", rows)
    return root


@pytest.fixture
def words(small_run, dev_data, tmp_path):
    more = """trainer.max_steps=6 trainer.checkpoint_every_n_steps=1 evaluation.tasks=[mine]
        evaluation.before=false"""
    return [*small_run, *more.split(), f"evaluation.data_root={dev_data}", f"output_root={tmp_path}"]


SWEEP = ["eval_during=sweep", "eval_during.every=2"]
EVERY = ["eval_during=sweep", "eval_during.every=1", "name=run"]


def watcher(run):
    return next(item for item in run.stage.trainer.callbacks if isinstance(item, MeasureWhileTraining))


def train(words, *callbacks, values=None):
    """A run; with `values` the measurements are these, in order."""
    run = Run(compose(words))
    run.stage.trainer.callbacks[:0] = callbacks
    if values is not None:
        watcher(run).measure = given(run, values)
    try:
        run.fit()
        publish(run)
    finally:
        run.folder.release()
    return run


def given(run, values):
    """Measurements by step: one number for all sub-models, or one each."""
    cells = [Cell(*sub) for sub in run.stage.plan.sub_models]

    def measure(step):
        found = values[step]
        found = found if isinstance(found, list) else [found] * len(cells)
        return {"mine": dict(zip(cells, found, strict=True))}

    return measure


def weights(folder):
    return load_file(folder / "model/model.safetensors")


def test_measuring_changes_no_bit_of_training_and_is_logged(words, tmp_path):
    """With dropout and accumulation: weights, optimiser, and the lines of the steps are as without it."""
    words = [*words, "trainer.accumulate_grad_batches=2"]
    train([*words, "name=without"])
    logger = FakeLogger()
    run = Run(compose([*words, *SWEEP, "name=with"]))
    run.stage.trainer.loggers = [*run.stage.trainer.loggers, logger]
    run.fit()
    publish(run)
    assert_equal_bits(weights(tmp_path / "with"), weights(tmp_path / "without"))
    states = [
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"]
        for name in ("with", "without")
    ]
    for mine, theirs in zip(*(state[0]["state"].values() for state in states), strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    rows = lines_of(tmp_path / "with")
    assert [row for row in rows if "train/loss" in row] == lines_of(tmp_path / "without")
    evaluated = [row for row in rows if "eval/mean" in row]
    assert [row["step"] for row in evaluated] == [1, 3, 5]
    keys = {"step", "eval/mean", *(f"eval/{what}_{sub}" for what in ("mean", "mine") for sub in SUBS)}
    assert all(row.keys() == keys for row in evaluated)
    assert evaluated[0]["eval/mean"] != evaluated[-1]["eval/mean"], "the model moved"
    assert [row for row in logger.rows if "eval/mean" in row[1]] == [
        (row["step"], {key: row[key] for key in row if key != "step"}) for row in evaluated
    ]
    scores = read_scores(tmp_path / "with/eval_during/scores.jsonl")
    assert sorted({score.step for score in scores}) == [2, 4, 6]
    assert {score.split for score in scores} == {"dev"}
    assert not (tmp_path / "with/scores.jsonl").exists()
    assert sorted(path.name for path in (tmp_path / "with/eval_during").iterdir()) == [
        "health.jsonl",
        "scores.jsonl",
        "tasks.json",
    ]
    assert "eval/mean_L1_D8" in (tmp_path / "with/metrics.csv").read_text("utf-8").splitlines()[0]


def test_a_stop_anywhere_changes_nothing(words, tmp_path):
    more = "eval_during.patience=5 final_weights=best trainer.checkpoint_every_n_steps=3"
    words = [*words, *SWEEP, *more.split()]
    whole = train([*words, "name=whole"])
    for stop in (3, 5):  # 5 takes and measures step 4 again
        with pytest.raises(StopError):
            train([*words, f"name=stopped_{stop}"], StopAfter(stop))
        resumed = train([*words, f"name=stopped_{stop}"])
        assert_equal_bits(weights(tmp_path / f"stopped_{stop}"), weights(tmp_path / "whole"))
        assert lines_of(tmp_path / f"stopped_{stop}") == lines_of(tmp_path / "whole")
        assert watcher(resumed).best == watcher(whole).best
        assert watcher(resumed).waited == watcher(whole).waited
        found, expected = (
            read_scores(tmp_path / name / "eval_during/scores.jsonl") for name in (f"stopped_{stop}", "whole")
        )
        assert sorted(item[1:] for item in found) == sorted(item[1:] for item in expected)


def test_the_best_step_is_published_and_each_cut_from_its_own(words, tmp_path):
    """Full model and mean are best at 4; the smallest sub-model at 2; a checkpoint holds these weights."""
    words += [*EVERY, "trainer.save_total_limit=9", "final_weights=best", "exports=[[1,8],[2,16]]"]
    words.append("eval_during.best_per_cut=true")
    values = {step: [0.1, 0.1 * step, 0.5] for step in range(1, 7)} | {2: [0.9, 0.2, 0.1], 4: [0.4, 0.9, 0.9]}
    run = train(words, values=values)
    assert run.final_step == 4
    assert watcher(run).best["L1_D8"] == (0.9, 2)
    folder = tmp_path / "run"
    names = {"best.ckpt", *(f"best_{sub}.ckpt" for sub in SUBS)}
    assert names <= {path.name for path in (folder / "checkpoints").iterdir()}

    def embedded(path):
        return load_encoder(path).encode(["a cat sleeps"], [1]).values[0, 0, :8]

    def at(step):
        take_weights(run.stage.module, folder / f"checkpoints/step_{step:09d}.ckpt")
        return run.encoder.encode(["a cat sleeps"], [1]).values[0, 0, :8]

    torch.testing.assert_close(embedded(folder / "model"), at(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(embedded(folder / "cut_L1_D8"), at(2), rtol=0, atol=1e-6)
    assert (at(2) - at(4)).abs().max() > 1e-4
    torch.testing.assert_close(embedded(folder / "cut_L2_D16"), at(4), rtol=0, atol=1e-6)


def test_patience_ends_a_run_and_it_stays_ended(words, tmp_path):
    words += [*EVERY, "eval_during.patience=2", "eval_during.min_delta=0.05"]
    values = {1: 0.5, 2: 0.54, 3: 0.56, 4: 0.6, 5: 0.58, 6: 0.9}  # 0.54 is better, but not by 0.05
    run = Run(compose(words))
    watcher(run).measure = given(run, values)
    run.fit()  # and the machine goes down here
    run.folder.release()
    assert run.final_step == 5
    again = train(words, values={})
    assert again.final_step == 5
    assert watcher(again).best["mean"] == (0.6, 4)
    assert (tmp_path / "run/model").exists()


def test_one_sub_model_may_decide(words):
    words += [*EVERY, "eval_during.monitor=L1_D8", "final_weights=best"]
    values = {step: [0.1, 0.1 * step, 0.5] for step in range(1, 7)} | {3: [0.2, 0.0, 0.0]}
    assert train(words, values=values).final_step == 3


def test_a_measurement_that_fails_is_survived(words, tmp_path, caplog):
    words = [*words, *SWEEP, "name=run"]
    run = Run(compose(words))
    good = watcher(run).measure

    def measure(step):
        if step == 4:
            raise OSError("no such disk")
        return good(step)

    watcher(run).measure = measure
    run.fit()
    assert "step 4 could not be measured, training goes on: OSError: no such disk" in caplog.text
    assert [row["step"] for row in lines_of(tmp_path / "run") if "eval/mean" in row] == [1, 5]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["eval_during.tasks=[mine:test]"], "mine would be measured on test while training"),
        (["eval_during.tasks=[STSBenchmark]"], "STSBenchmark would be measured on test"),
        (["eval_during.monitor=L3_D8"], "monitor must be one of mean, L1_D8, L2_D16, L4_D32, got 'L3_D8'"),
        (["eval_during.layers=[9]"], r"there is no L9_D8; layers are 1\.\.4"),
        (["eval_during.every=0"], "every must be 1 or more, got 0"),
        (["eval_during.time_share=1.5"], "time_share must be between 0 and 1"),
        (["eval_during.dtypes=[int4]"], "dtypes has 'int4'"),
        (["evaluation.tasks=[STS12]"], "none of evaluation.tasks has a development split"),
        (["eval_during.tasks=[STSBenchmark:validation]"], "cannot be loaded"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_run(words, more, message):
    with pytest.raises(InputError, match=message):
        Run(compose([*words, *SWEEP, *more, "name=run"]))


def test_test_splits_only_where_that_is_said(words, tmp_path):
    train([*words, *SWEEP, "eval_during.tasks=[mine:test]", "eval_during.allow_test=true", "name=run"])
    assert {score.split for score in read_scores(tmp_path / "run/eval_during/scores.jsonl")} == {"test"}


def test_two_ranks_agree_on_what_is_best_and_when_to_end(processes, words, tmp_path):
    """The first measures, and both end at the same step; nobody waits for the other for ever."""
    words += [*EVERY, "eval_during.patience=1", "eval_during.min_delta=9", "eval_during.time_share=0.9"]
    words += ["final_weights=best", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    finish(*processes.ranks("train", words))
    rows = lines_of(tmp_path / "run")
    measured = [row["step"] for row in rows if "eval/mean" in row]
    assert len(measured) == 2
    assert max(row["step"] for row in rows) == measured[-1] < 5
    assert (tmp_path / "run/model").exists()
