"""torchrun starts all ranks again after one died: the run goes on, whatever its words ask to overwrite."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import LIMIT, finish, wait_until
from small_runs import assert_same_run, train

STEPS = 80
LAUNCHER = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=1"),
    *("--nproc-per-node=2", "-m", "embedtrain.cli.train"),
]


class Launched:
    """A torchrun with its log; as a process of `processes.wait_until`."""

    def __init__(self, words, log):
        self.log = log
        # torch serves the addresses of the ranks that died from the store that torchrun shares among attempts
        environment = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with log.open("w") as file:
            self._process = subprocess.Popen([*LAUNCHER, *words], stdout=file, stderr=file, env=environment)

    def is_alive(self):
        return self._process.poll() is None

    def wait(self):
        return self._process.wait(LIMIT)

    def end(self):
        self._process.terminate()
        self.wait()

    def rank(self, number):
        """The process of a rank."""
        parent, mine = f"PPid:\t{self._process.pid}\n", f"LOCAL_RANK={number}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if parent in (folder / "status").read_text() and mine in (folder / "environ").read_bytes():
                    return int(folder.name)
            except OSError:  # it ended meanwhile
                continue
        raise AssertionError(f"no rank {number}")


@pytest.fixture
def launch():
    """(words, log) -> a torchrun, which does not outlive the test."""
    started = []

    def run(words, log):
        started.append(Launched(words, log))
        return started[-1]

    yield run
    for process in started:
        process.end()


def lines(folder):
    path = folder / "metrics.jsonl"
    return path.read_text("utf-8").splitlines() if path.exists() else []


def has_begun_anew(folder):
    """Whether the new run has logged a step: the old one logged two."""
    seen = lines(folder)
    return (folder.parent / f".{folder.name}.replaced").exists() and len(seen) > 3


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find the ranks")
@pytest.mark.parametrize(
    ("dies", "every", "resumes"), [(1, 10, True), (0, 10, True), (1, 1000, False)], ids=str
)
def test_a_restart_goes_on_with_what_overwriting_began(
    launch, processes, small_run, tmp_path, dies, every, resumes
):
    """After its first checkpoint or before it; the weights are those of the run that no rank left."""
    words = [*small_run, f"output_root={tmp_path}", f"trainer.max_steps={STEPS}"]
    train([*words, "name=x", "seed=5", "trainer.max_steps=2"])
    words += ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    more = [f"trainer.checkpoint_every_n_steps={every}", "overwrite=true", "name=x"]
    process, folder = launch([*words, *more], tmp_path / "x.log"), tmp_path / "x"
    saved = folder / f"checkpoints/step_{every:09}.ckpt"
    wait_until(saved.exists if resumes else lambda: has_begun_anew(folder), process)
    os.kill(process.rank(dies), signal.SIGKILL)
    assert process.wait() == 0, process.log.read_text()[-3000:]
    said = process.log.read_text()
    assert said.count(f"training {STEPS} steps") == 2, "the ranks were started twice"
    assert ("resuming at step " in said) == resumes
    assert not (tmp_path / ".x.replaced").exists()
    assert json.loads((folder / "finished.json").read_text("utf-8")) is not None
    finish(*processes.ranks("train", [*words, f"trainer.checkpoint_every_n_steps={every}", "name=whole"]))
    assert_same_run(folder, tmp_path / "whole")
