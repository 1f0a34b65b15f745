"""Stop anywhere, run the same command again: the weights and the metrics are those of never stopping."""

import signal
import subprocess
import sys

import pytest
import torch
from processes import finish, send_signal, wait_until
from safetensors.torch import load_file
from small_runs import (
    StopAfter,
    StopError,
    assert_close_weights,
    assert_equal_bits,
    compose,
    lines_of,
    train,
    weights,
    without,
    write_rows,
)

from embedtrain.run.run import Run

STEPS = 6
EVERYTHING = [  # whatever draws numbers or keeps state between steps
    "plan=random2d",
    "plan.dims=[8,16,32]",
    "data.validation_rows=8",
    "data.batch_size=4",
    f"trainer.max_steps={STEPS}",
    "loss.learn_temperature=true",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=2",
    "trainer.checkpoint_every_n_steps=1",
]


@pytest.fixture
def words(small_run, tmp_path):
    kept = without(small_run, "plan.pairs", "data.batch_size")
    return [*kept, *EVERYTHING, f"output_root={tmp_path}"]


def test_stopping_changes_nothing(words, tmp_path):
    train([*words, "name=whole"])
    expected = weights(tmp_path / "whole")
    for stops in ((1,), (2,), (3, 4)):  # 2 and 4 are just after a validation
        name = f"stopped_{stops[0]}"
        for stop in stops:
            with pytest.raises(StopError):
                train([*words, f"name={name}"], StopAfter(stop))
        train([*words, f"name={name}"])
        assert_equal_bits(weights(tmp_path / name), expected)
        assert lines_of(tmp_path / name) == lines_of(tmp_path / "whole")


LARGE_BATCHES = [  # what a step with chunks and a queue keeps and draws
    "plan=fixed_pairs",
    "plan.pairs=[[1,8],[2,16],[4,32]]",
    "gradcache=chunks",
    "gradcache.max_tokens=48",
    "queue=documents",
    "queue.size=10",
]


def test_stopping_changes_nothing_with_chunks_and_a_queue(words, tmp_path):
    """The queue is full, and its oldest documents gone, before the run stops."""
    large = [*without(words, "plan", "plan.dims"), *LARGE_BATCHES]
    whole = train([*large, "name=whole"])
    assert len(whole.stage.step.batch_loss.queue) == 10
    for stop in (1, 3):
        name = f"stopped_{stop}"
        with pytest.raises(StopError):
            train([*large, f"name={name}"], StopAfter(stop))
        train([*large, f"name={name}"])
        assert_equal_bits(weights(tmp_path / name), weights(tmp_path / "whole"))
        assert lines_of(tmp_path / name) == lines_of(tmp_path / "whole")
        for mine, theirs in zip(queue_in(tmp_path / name), queue_in(tmp_path / "whole"), strict=True):
            assert torch.equal(mine, theirs)
    best = torch.load(tmp_path / "whole/checkpoints/best.ckpt", weights_only=True)
    assert "step" not in best, "weights alone are kept without it"


def queue_in(folder):
    """The tensors of the queue that a run ended with."""
    documents = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["step"]["queue"]["documents"]
    return [part for part in documents if part is not None]


def test_validation_by_share_waits_for_whole_steps(words, tmp_path):
    shares = [
        *without(words, "trainer.val_check_interval"),
        "trainer.val_check_interval=0.3",
    ]  # 3.6 of 12 batches
    train([*shares, "name=whole"])
    validated = [row["step"] for row in lines_of(tmp_path / "whole") if "val/mean" in row]
    assert validated == list(range(STEPS))
    with pytest.raises(StopError):
        train([*shares, "name=stopped"], StopAfter(3))
    train([*shares, "name=stopped"])
    assert_equal_bits(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    assert lines_of(tmp_path / "stopped") == lines_of(tmp_path / "whole")


def test_dropout_is_on_and_drawn_from_the_seed(words, tmp_path):
    train([*words, "name=seed_0"])
    train([*words, "name=again"])
    assert_equal_bits(weights(tmp_path / "again"), weights(tmp_path / "seed_0"))
    run = Run(compose([*words, "name=third"]))
    assert run.stage.module.training
    assert all(part.training for part in run.stage.module.modules())


def test_a_run_that_ended_before_it_was_published_is_only_published(words, tmp_path):
    train([*words, "name=whole"])
    run = Run(compose([*words, "name=unpublished"]))
    run.fit()  # and the machine goes down here
    train([*words, "name=unpublished"])
    assert_equal_bits(weights(tmp_path / "unpublished"), weights(tmp_path / "whole"))
    assert lines_of(tmp_path / "unpublished") == lines_of(tmp_path / "whole")


def launch(words, cwd):
    """The command as a person starts it; Lightning starts the other ranks."""
    command = [sys.executable, "-m", "embedtrain.cli.train", *words]
    return subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True)


def steps_done(folder, count):
    """Whether so many steps are written down."""
    metrics = folder / "metrics.jsonl"
    return lambda: metrics.exists() and metrics.read_text("utf-8").count("\n") >= count


def test_a_real_kill(processes, words, tmp_path):
    long = [*without(words, "trainer.max_steps"), "trainer.max_steps=24"]
    process = processes.command("train", [*long, "name=killed"])
    wait_until(steps_done(tmp_path / "killed", 5), process)
    send_signal(process, signal.SIGKILL)
    assert not (tmp_path / "killed/model").exists(), "the run was over before it could be killed"
    for name in ("killed", "whole"):
        finish(processes.command("train", [*long, f"name={name}"]))
    assert_equal_bits(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert lines_of(tmp_path / "killed") == lines_of(tmp_path / "whole")
    steps = [row["step"] for row in lines_of(tmp_path / "killed") if "train/loss" in row]
    assert steps == list(range(24))


def test_another_number_of_ranks_continues_with_the_same_batches(processes, words, calm, tmp_path):
    """1 to 2 ranks and 2 to 1, with a queue that is full and drops documents inside a batch."""
    rows = tmp_path / "rows.jsonl"
    lines = [
        {"query": f"cat {n} sleeps", "positive": f"a dog {n} runs", "negatives": [f"bird {n}", f"tree {n}"]}
        for n in range(40)
    ]
    write_rows(rows, lines)
    own = "plan plan.dims backbone.path data.train optim.lr".split()
    own += ["trainer.max_steps", "trainer.val_check_interval"]
    given = [*without(words, *own), *LARGE_BATCHES, f"backbone.path={calm}", f"data.train={rows}"]
    given += ["trainer.max_steps=24", "optim.lr=1e-4", "trainer.val_check_interval=5", "trainer=cpu"]
    run = launch([*given, "name=two_to_one", "trainer.devices=2"], tmp_path)
    done = steps_done(tmp_path / "two_to_one", 5)
    wait_until(lambda: done() or run.poll() is not None)
    run.send_signal(signal.SIGTERM)  # to the first rank alone, and both stop
    _, errors = run.communicate()
    assert run.returncode == 143, errors[-3000:]
    assert not (tmp_path / "two_to_one/model").exists(), "it was over before it could be stopped"
    finish(processes.command("train", [*given, "name=two_to_one"]))
    run = processes.command("train", [*given, "name=one_to_two"])
    wait_until(steps_done(tmp_path / "one_to_two", 5), run)
    assert send_signal(run) == 143
    assert not (tmp_path / "one_to_two/model").exists(), "it was over before it could be stopped"
    finish(*processes.ranks("train", [*given, "name=one_to_two", "trainer.devices=2"]))
    finish(processes.command("train", [*given, "name=one"]))
    for name in ("two_to_one", "one_to_two"):
        assert_close_weights(tmp_path / name, tmp_path / "one")
        assert [row["step"] for row in lines_of(tmp_path / name)] == [
            row["step"] for row in lines_of(tmp_path / "one")
        ]
        for mine, expected in zip(queue_in(tmp_path / name), queue_in(tmp_path / "one"), strict=True):
            torch.testing.assert_close(mine, expected, atol=1e-5, rtol=0)


def test_two_ranks_train_like_one(processes, small_run, calm, tmp_path):
    words = [*without(small_run, "backbone.path"), f"backbone.path={calm}", f"output_root={tmp_path}"]
    words += ["trainer.max_steps=5", "data.validation_rows=9", "trainer.accelerator=cpu"]
    two = processes.ranks("train", [*words, "name=two", "trainer=ddp", "trainer.devices=2"])
    finish(*two, processes.command("train", [*words, "name=one"]))
    one, two = lines_of(tmp_path / "one"), lines_of(tmp_path / "two")
    assert [row.keys() for row in two] == [row.keys() for row in one]
    for mine, theirs in zip(two, one, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    trained, expected = (load_file(tmp_path / name / "model/model.safetensors") for name in ("two", "one"))
    for name, value in expected.items():
        if name.endswith("key.bias"):
            continue  # softmax does not see it: its gradient is rounding noise, which Adam scales to a step
        torch.testing.assert_close(trained[name], value, atol=1e-4, rtol=0)
