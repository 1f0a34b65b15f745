"""Stop anywhere, run the same command again: the weights and the metrics are those of never stopping."""

import signal
import subprocess
import sys

import pytest
import torch
from processes import finish, send_signal, wait_until
from small_runs import (
    assert_close_weights,
    assert_equal_bits,
    assert_same_run,
    compose,
    lines_of,
    train,
    train_stopped,
    weights,
    without,
    write_rows,
)  # fmt: skip

from embedtrain.run.run import Run

STEPS = 6
EVERYTHING = f"""plan=random2d plan.dims=[8,16,32] data.validation_rows=8 data.batch_size=4
    trainer.max_steps={STEPS} loss.learn_temperature=true trainer.accumulate_grad_batches=2
    trainer.val_check_interval=2 trainer.checkpoint_every_n_steps=1"""  # what draws numbers or keeps state
LARGE_BATCHES = """plan=fixed_pairs plan.pairs=[[1,8],[2,16],[4,32]] gradcache=chunks gradcache.max_tokens=48
    queue=documents queue.size=10"""  # what a step with chunks and a queue keeps and draws


@pytest.fixture
def words(small_run, tmp_path):
    return [*without(small_run, "plan.pairs"), *EVERYTHING.split(), f"output_root={tmp_path}"]


def test_stopping_changes_nothing(words, tmp_path):
    train([*words, "name=whole"])
    for stops in ((1,), (2,), (3, 4)):  # 2 and 4 are just after a validation
        train_stopped([*words, f"name=stopped_{stops[0]}"], *stops)
        assert_same_run(tmp_path / f"stopped_{stops[0]}", tmp_path / "whole")


def test_stopping_changes_nothing_with_chunks_and_a_queue(words, tmp_path):
    """The queue is full, and its oldest documents gone, before the run stops."""
    large = [*without(words, "plan", "plan.dims"), *LARGE_BATCHES.split()]
    whole = train([*large, "name=whole"])
    assert len(whole.stage.step.batch_loss.queue) == 10
    for stop in (1, 3):
        name = f"stopped_{stop}"
        train_stopped([*large, f"name={name}"], stop)
        assert_same_run(tmp_path / name, tmp_path / "whole")
        for mine, theirs in zip(queue_in(tmp_path / name), queue_in(tmp_path / "whole"), strict=True):
            assert torch.equal(mine, theirs)
    best = torch.load(tmp_path / "whole/checkpoints/best.ckpt", weights_only=True)
    assert "step" not in best, "weights alone are kept without it"


def queue_in(folder):
    """The tensors of the queue that a run ended with."""
    documents = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["step"]["queue"]["documents"]
    return [part for part in documents if part is not None]


def test_validation_by_share_waits_for_whole_steps(words, tmp_path):
    shares = [*words, "trainer.val_check_interval=0.3"]  # 3.6 of 12 batches
    train([*shares, "name=whole"])
    validated = [row["step"] for row in lines_of(tmp_path / "whole") if "val/mean" in row]
    assert validated == list(range(STEPS))
    train_stopped([*shares, "name=stopped"], 3)
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


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
    run.folder.release()
    train([*words, "name=unpublished"])
    assert_same_run(tmp_path / "unpublished", tmp_path / "whole")


def steps_done(folder, count):
    """Whether so many steps are written down."""
    metrics = folder / "metrics.jsonl"
    return lambda: metrics.exists() and metrics.read_text("utf-8").count("\n") >= count


def test_a_real_kill(processes, words, tmp_path):
    long = [*words, "trainer.max_steps=24"]
    process = processes.command("train", [*long, "name=killed"])
    wait_until(steps_done(tmp_path / "killed", 5), process)
    send_signal(process, signal.SIGKILL)
    assert not (tmp_path / "killed/model").exists(), "the run was over before it could be killed"
    for name in ("killed", "whole"):
        finish(processes.command("train", [*long, f"name={name}"]))
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    steps = [row["step"] for row in lines_of(tmp_path / "killed") if "train/loss" in row]
    assert steps == list(range(24))


def test_another_number_of_ranks_continues_with_the_same_batches(processes, words, calm, tmp_path):
    """1 to 2 ranks and 2 to 1, with a queue that is full and drops documents inside a batch."""
    lines = [
        {"query": f"cat {n} sleeps", "positive": f"a dog {n} runs", "negatives": [f"bird {n}", f"tree {n}"]}
        for n in range(40)
    ]
    given = [*without(words, "plan", "plan.dims"), *LARGE_BATCHES.split(), f"backbone.path={calm}"]
    given += [f"data.train={write_rows(tmp_path / 'rows.jsonl', lines)}", "trainer.max_steps=24"]
    given += ["optim.lr=1e-4", "trainer.val_check_interval=5", "trainer=cpu"]
    # The command as a person starts it; Lightning starts the other rank.
    command = [sys.executable, "-m", "embedtrain.cli.train", *given, "name=two_to_one", "trainer.devices=2"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
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
