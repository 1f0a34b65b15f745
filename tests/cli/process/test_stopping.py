"""Real signals to the real command: it saves, says how to go on, exits with 128 + the signal."""

import json
import os
import signal
import sys

import pytest
import torch
from processes import as_torchrun, finish, free_port, send_signal, wait_until
from small_runs import assert_equal_bits, assert_same_run, compose, weights

from embedtrain.cli import train
from embedtrain.cli.process.stopping import job_to_requeue
from embedtrain.files.checksum import fault_of
from embedtrain.training import checkpoints as checkpoint

GO_ON = "the same command continues from the last checkpoint"
STEPS = 400  # more than fit between the first lines of metrics and a signal


@pytest.fixture
def start(small_run, processes, tmp_path):
    """Start the command in a process of its own: (name, more words, environment) -> the process."""

    def run(name, *words, steps=STEPS, **environment):
        given = [f"name={name}", f"output_root={tmp_path}", f"trainer.max_steps={steps}", *words]
        return processes.command("train", [*small_run, *given], f"{name}.log", **environment)

    return run


def lines(folder):
    path = folder / "metrics.jsonl"
    return path.read_text("utf-8").splitlines() if path.exists() else []


def saved_step(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda item: item.name
)
def test_a_signal_during_steps_saves_and_leaves(start, tmp_path, number):
    process = start("x")
    wait_until(lambda: len(lines(tmp_path / "x")) > 3, process)
    assert send_signal(process, number) == 128 + number
    step = saved_step(tmp_path / "x")
    assert 3 < step < STEPS
    log = (tmp_path / "x.log").read_text()
    assert f"stopped by {number.name} at step {step}, which is saved; {GO_ON}" in log
    assert "Traceback" not in log
    assert json.loads(lines(tmp_path / "x")[-1])["step"] == step - 1, "no step is lost, none is ahead"


def test_what_was_stopped_continues_to_the_same_weights(start, tmp_path):
    process = start("x", steps=40)
    wait_until(lambda: len(lines(tmp_path / "x")) > 3, process)
    assert send_signal(process) == 143
    process = start("x", steps=40)
    whole = start("whole", steps=40)
    finish(process, whole)
    assert_equal_bits(weights(tmp_path / "x"), weights(tmp_path / "whole"))


def test_a_signal_during_validation_waits_for_its_end(start, tmp_path):
    words = """data.validation_rows=32 trainer.val_check_interval=3 trainer.checkpoint_every_n_steps=1000
        plan=random2d plan.dims=[8,32] ~plan.pairs"""
    process = start("x", *words.split())
    best = tmp_path / "x/checkpoints/best.ckpt"
    wait_until(lambda: len(lines(tmp_path / "x")) >= 3, process)  # its third step is done, validation begins
    assert send_signal(process) == 143
    step = saved_step(tmp_path / "x")
    validated = [row["step"] for row in map(json.loads, lines(tmp_path / "x")) if "val/mean" in row]
    assert validated == list(range(2, step, 3)), (
        "a resumed run does not repeat a validation, so none is left out"
    )
    assert best.exists()


class Interrupting:
    """A file whose writer is sent a signal once some of it is written."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        written = self._file.write(data)
        if self._file.tell() > 20_000 and not self.sent:
            type(self).sent = True
            os.kill(os.getpid(), signal.SIGTERM)
        return written

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize(
    ("interrupted", "ends_at"), [("step_000000002.ckpt", 3), ("best.ckpt", 4), ("step_000000006.ckpt", 6)]
)
def test_a_signal_while_a_checkpoint_is_written(small_run, tmp_path, monkeypatch, interrupted, ends_at):
    """What is being written is finished; the run ends with the next step, or at its end."""
    more = """trainer.max_steps=6 trainer.checkpoint_every_n_steps=2 data.validation_rows=8
        trainer.val_check_interval=4 trainer.save_total_limit=9"""
    words = [*small_run, *more.split(), f"output_root={tmp_path}"]
    write, sizes = checkpoint.write_atomically, []

    def interrupt(path, fill):
        if path.name != interrupted:
            return write(path, fill)
        write(path, lambda file: fill(Interrupting(file)))
        sizes.append(path.stat().st_size)

    with monkeypatch.context() as patch:
        patch.setattr(Interrupting, "sent", False, raising=False)
        patch.setattr(checkpoint, "write_atomically", interrupt)
        with pytest.raises(SystemExit) as ended:
            train.run(compose([*words, "name=x"]))
        assert Interrupting.sent
    assert ended.value.code == 143
    assert sizes[0] > 40_000, "the signal came in the middle"
    kept = tmp_path / "x/checkpoints"
    assert [path.name for path in kept.iterdir() if path.name.endswith(".tmp")] == []
    assert {path.name: fault_of(path) for path in kept.glob("*.ckpt") if fault_of(path)} == {}
    assert (kept / interrupted).exists()
    assert saved_step(tmp_path / "x") == ends_at
    assert not (tmp_path / "x/model").exists()
    for name in ("x", "whole"):
        train.run(compose([*words, f"name={name}"]))
    assert_same_run(tmp_path / "x", tmp_path / "whole")


def ranks_of_two(start, name, *words):
    """Both ranks of a run, as torchrun starts them."""
    port = free_port()
    more = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", *words]
    return [start(name, *more, **as_torchrun(rank, 2, port)) for rank in range(2)]


def test_a_signal_to_another_rank_than_the_first_ends_both(start, tmp_path):
    """Dropout is on: it depends on the rank, and on the step."""
    words = ["trainer.max_steps=60", "data.validation_rows=8", "trainer.val_check_interval=7"]
    first, second = ranks_of_two(start, "x", *words)
    wait_until(lambda: len(lines(tmp_path / "x")) > 3, first)
    assert send_signal(second) == 0, "a launcher would take another status for a crash"
    first.join()
    assert first.exitcode == 143
    step = saved_step(tmp_path / "x")
    assert 3 < step < 60
    log = (tmp_path / "x.log").read_text()
    assert log.count(f"stopped by SIGTERM at step {step}, which is saved; {GO_ON}") == 1
    assert "Traceback" not in log
    for name in ("x", "whole"):
        finish(*ranks_of_two(start, name, *words))
    assert_same_run(tmp_path / "x", tmp_path / "whole")


def test_a_signal_during_evaluation_ends_at_once(start, tmp_path, small_data):
    words = ["evaluation.tasks=[find]", f"evaluation.data_root={small_data}"]
    process = start("x", *words)
    log = tmp_path / "x.log"
    wait_until(lambda: log.exists() and "measuring the untouched backbone" in log.read_text(), process)
    assert send_signal(process) == 143
    assert (
        "stopped by SIGTERM; no step is saved, so the same command begins with the first" in log.read_text()
    )
    assert "Traceback" not in log.read_text()


def slurm(tmp_path):
    """The environment of a job of one task, with a `scontrol` that writes down what it is told."""
    tool, told = tmp_path / "bin/scontrol", str(tmp_path / "told")
    tool.parent.mkdir()
    tool.write_text(f"#!{sys.executable}\nimport sys\nopen({told!r}, 'w').write(' '.join(sys.argv[1:]))\n")
    tool.chmod(0o755)
    job = "NTASKS=1 JOB_NAME=train PROCID=0 LOCALID=0 NODEID=0 JOB_ID=4711"
    path = f"{tool.parent}:{os.environ['PATH']}"
    return dict(f"SLURM_{word}".split("=") for word in job.split()) | {"PATH": path}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 138), (signal.SIGTERM, 143)])
def test_slurm_requeues_a_job_that_it_warned_and_not_one_it_ended(start, tmp_path, number, status):
    process = start("x", **slurm(tmp_path))
    wait_until(lambda: len(lines(tmp_path / "x")) > 3, process)
    assert send_signal(process, number) == status
    assert saved_step(tmp_path / "x") > 3
    warned, told = number == signal.SIGUSR1, tmp_path / "told"
    assert (told.read_text() if told.exists() else "") == "requeue 4711" * warned
    assert ("SLURM job 4711 is in the queue again" in (tmp_path / "x.log").read_text()) == warned


def test_which_job_goes_back():
    assert job_to_requeue({}) is None
    assert job_to_requeue({"SLURM_JOB_ID": "7"}) == "7"
    array = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    assert job_to_requeue(array) == "7_2"
    assert job_to_requeue({"SLURM_JOB_ID": "7", "SUBMITIT_EXECUTOR": "slurm"}) is None
