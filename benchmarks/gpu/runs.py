"""Whether whole runs do on a device what they do elsewhere."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from pytorch_lightning.callbacks import Callback

from embedtrain.cli.launch import settings_from
from embedtrain.evaluation.mteb_private import mock_tasks
from embedtrain.evaluation.sweeping import scoring
from embedtrain.evaluation.sweeping.sweep import sweep
from embedtrain.files.scores import read_scores
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder
from embedtrain.run.publish import evaluate_after, evaluate_before, publish
from embedtrain.run.run import Run
from embedtrain.types import Cell
from gpu.setting import Measured, Setting

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
GUIDED = ("negatives=gist", "guide=model", "queue=documents")


def lines(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


@contextmanager
def begun(words: Sequence[str]) -> Iterator[Run]:
    """A run that lets its folder go."""
    run = Run(settings_from("train", list(words)))
    try:
        yield run
    finally:
        run.folder.release()


def losses_of(folder: Path) -> list[float]:
    """Of each step."""
    return [row["train/loss"] for row in lines(folder) if "train/loss" in row]


def largest_change(found: Sequence[float], expected: Sequence[float]) -> float:
    """Relative, of numbers in order."""
    assert len(found) == len(expected) > 0, (len(found), len(expected))
    return max(abs(one - two) / max(abs(two), 1e-9) for one, two in zip(found, expected, strict=True))


def train(setting: Setting) -> list[Measured]:
    """A run with all that there is, measured before and after: on the device, and it learns."""
    steps, used = setting.size(4, 20), []
    encode = Encoder.encode

    def noted(self: Encoder, *args: object, **kwargs: object) -> object:
        used.append(self.device.type)
        return encode(self, *args, **kwargs)

    words = setting.words(
        "train", *GUIDED, f"guide.path={setting.model}", "gradcache=chunks", f"trainer.max_steps={steps}",
        f"data.num_workers={setting.size(0, 2)}", "evaluation.tasks=[local]", "optim.lr=1e-3",
        f"evaluation.data_root={setting.data_root()}", "exports=[[1,16]]",
    )  # fmt: skip
    Encoder.encode = noted
    try:
        with begun(words) as run:
            failed = [evaluate_before(run)]
            run.fit()
            failed.append(evaluate_after(run, publish(run)))
            folder = run.folder.path
    finally:
        Encoder.encode = encode
    loss = losses_of(folder)
    norms = [row["train/grad_norm"] for row in lines(folder) if "train/grad_norm" in row]
    return [
        Measured(
            "encodings elsewhere than on the device",
            sum(kind != setting.device.type for kind in used),
            most=0,
        ),
        Measured("tasks that failed", sum(item is not None for item in failed), most=0),
        Measured("steps of finite gradient norm", sum(map(math.isfinite, norms)), least=steps),
        Measured("last loss as a share of the first", loss[-1] / loss[0], most=None if setting.tiny else 1.0),
        Measured(
            "models written", sum((folder / name).exists() for name in ("model", "cut_L1_D16")), least=2
        ),
    ]


def _scores(setting: Setting, workers: int) -> dict[tuple[object, ...], float]:
    """Scores by processes that were forked after the device was used."""
    encoder = load_encoder(setting.model).to(setting.device)
    encoder.encode(["a cat"], (1,))
    kinds = ("Summarization", "STS", "Retrieval")
    tasks = [next(task for task in mock_tasks() if task.metadata.type == kind) for kind in kinds]
    cells = [Cell(layer, dim) for layer in (1, 2) for dim in (8, 16)]
    folder = setting.folder / f"scoring{workers}"
    sweep(encoder, tasks, cells, run="x", step=0, revision="0" * 40, folder=folder, workers=workers)
    return {tuple(score[:7]): score.value for score in read_scores(folder / "scores.jsonl")}


def forked(setting: Setting) -> list[Measured]:
    """The same scores from forked processes as from this one, and one context on a GPU."""
    before, scoring.FORKS_PAY = scoring.FORKS_PAY, 0.0
    try:
        one, four = _scores(setting, 1), _scores(setting, 4)
    finally:
        scoring.FORKS_PAY = before
    change = max(abs(one[key] - four[key]) for key in one) if one.keys() == four.keys() else math.inf
    found = [Measured("scores", len(one), least=12), Measured("largest difference", change, most=1e-6)]
    if setting.on_gpu:
        used = sum(torch.cuda.memory_reserved(number) > 0 for number in range(torch.cuda.device_count()))
        found.append(Measured("GPUs in use", used, most=1))
    return found


class _StopError(Exception):
    """Ends a run early."""


class _StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: object, *_: object) -> None:
        if trainer.global_step == self.step:
            raise _StopError


def resume(setting: Setting) -> list[Measured]:
    """A run that was stopped and continued, beside one that was not, and that one twice."""

    def run(name: str, stop: int | None = None) -> list[float]:
        words = setting.words(
            name, "queue=documents", "trainer.max_steps=10", "trainer.checkpoint_every_n_steps=5",
            "trainer.precision=bf16-mixed",
        )  # fmt: skip
        with begun(words) as made:
            if stop is not None:
                made.stage.trainer.callbacks.append(_StopAfter(stop))
            try:
                made.fit()
            except _StopError:
                return []
            held = made.stage.step.batch_loss.queue.state_dict()["documents"]
            ids[name] = held[1]
            return losses_of(made.folder.path)

    ids: dict[str, torch.Tensor] = {}
    whole, again = run("whole"), run("again")
    run("stopped", 5)
    continued = run("stopped")
    same = torch.equal(ids["whole"], ids["stopped"])
    return [
        Measured("losses after the stop", largest_change(continued[5:], whole[5:]), most=1e-3),
        Measured("queue holds the same", float(same), least=1),
        Measured(
            "the same run twice, losses", largest_change(again, whole), most=None if setting.on_gpu else 0.0
        ),
    ]


class _Waits(Callback):
    """What CUDA warns of in one step: places that wait for the device."""

    def __init__(self, at: int) -> None:
        self.at, self.found = at, []
        self._caught = warnings.catch_warnings(record=True)

    def on_train_batch_start(self, trainer: object, module: object, batch: object, number: int) -> None:
        if number == self.at:
            self.found = self._caught.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        if number == self.at + 1:
            torch.cuda.set_sync_debug_mode("default")
            self._caught.__exit__(None, None, None)


def waits(setting: Setting) -> list[Measured]:
    """Waits for the device in one step, plain and with all that there is (CUDA alone counts them)."""
    found = []
    for name, more in {
        "plain": (),
        "all": (*GUIDED, f"guide.path={setting.model}", "gradcache=chunks"),
    }.items():
        callback = _Waits(3)
        with begun(
            setting.words(f"waits_{name}", *more, "trainer.max_steps=6", "trainer.log_every_n_steps=100")
        ) as run:
            if setting.on_gpu:
                run.stage.trainer.callbacks.insert(0, callback)
            run.fit()
        waited = [item for item in callback.found if "synchron" in str(item.message)]
        places = {f"{item.filename}:{item.lineno}" for item in waited}
        print("\n".join(f"    {place}" for place in sorted(places)), end="\n" if places else "")
        found.append(Measured(f"{name}: waits of a step", len(waited), most=3))
    return found


def cpu(setting: Setting) -> list[Measured]:
    """A run on the CPU of this machine uses no GPU."""
    words = setting._replace(device=torch.device("cpu")).words("on_cpu", "trainer.max_steps=2")
    code = (
        "import sys, torch; from embedtrain.cli.train import main\n"
        "try: main()\nfinally: print('used', int(torch.cuda.is_initialized()))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if line.startswith("used")]
    if done.returncode or not said:
        raise RuntimeError(done.stderr[-800:])
    return [Measured("contexts on GPUs", int(said[0].split()[1]), most=0)]
