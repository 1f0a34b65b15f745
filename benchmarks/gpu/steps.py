"""Whether steps scale, skip and are shared among ranks as they should."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy

from embedtrain.training import trainer as trainer_module
from embedtrain.training.callbacks.saving import TrainingProgress
from embedtrain.types import InputError
from gpu.runs import begun, largest_change, losses_of
from gpu.setting import Measured, Setting


class _Overflow(Callback):
    """Makes a gradient infinite at one step; keeps the scale after each, and what that step changed.

    Args:
        at: the step.
        scaler: of the run.
    """

    def __init__(self, at: int, scaler: torch.amp.GradScaler) -> None:
        self.at, self.scaler = at, scaler
        self.scales, self.changed = [float(scaler.get_scale())], -1
        self._before: list[torch.Tensor] = []

    def on_after_backward(self, trainer: object, module: torch.nn.Module) -> None:
        if trainer.global_step == self.at:
            trained = [item for item in module.parameters() if item.grad is not None]
            self._before = [item.detach().clone() for item in trained]
            trained[0].grad.fill_(torch.inf)

    def on_train_batch_end(self, trainer: object, module: torch.nn.Module, *_: object) -> None:
        self.scales.append(float(self.scaler.get_scale()))
        if self._before:
            trained = [item for item in module.parameters() if item.grad is not None]
            self.changed = sum(
                not torch.equal(one, two.detach()) for one, two in zip(self._before, trained, strict=True)
            )
            self._before = []


def precision(setting: Setting) -> list[Measured]:
    """float16: steps that overflow are left out and few do; weights of 16 bits are refused."""
    steps = setting.size(6, 20)
    kind = "16-mixed" if setting.on_gpu else "bf16-mixed"  # Lightning has no float16 on a CPU, torch has
    with begun(setting.words("half", f"trainer.precision={kind}", f"trainer.max_steps={steps}")) as run:
        if not setting.on_gpu:
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
            run.stage.trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
        overflow = _Overflow(steps // 2, run.stage.trainer.precision_plugin.scaler)
        run.stage.trainer.callbacks.append(overflow)
        run.fit()
        finite = all(bool(item.isfinite().all()) for item in run.encoder.parameters())
    skipped = sum(two < one for one, two in pairwise(overflow.scales))
    try:
        with begun(setting.words("true", "trainer.precision=bf16-true")):
            refused = 0
    except InputError:
        refused = 1
    return [
        Measured("float16: weights are finite", float(finite), least=1),
        Measured("float16: least scale", min(overflow.scales), least=2.0),
        Measured("float16: steps left out, one of them forced", skipped, least=1, most=4),
        Measured("float16: weights that the forced one changed", overflow.changed, least=0, most=0),
        Measured("bf16-true is refused", refused, least=1),
    ]


def ranks(setting: Setting) -> list[Measured]:
    """FSDP2 and DDP beside no ranks: five steps, saved, and continued to ten; of two GPUs where there are."""
    found = []
    alone = _trained(setting, "alone", [], [10])
    for count in (1, 2) if setting.on_gpu and torch.cuda.device_count() > 1 else (1,):
        devices = [f"trainer.devices={count}"]
        for kind, words in {"FSDP2": ["trainer.shard=true"], "DDP": []}.items():
            losses = _trained(setting, f"{kind}_{count}", [*devices, *words], [5, 10])
            change = largest_change(losses, alone)
            found.append(Measured(f"{kind} of {count}, stopped once: losses", change, most=1e-3))
    return found


def _trained(setting: Setting, name: str, more: Sequence[str], ends: Sequence[int]) -> list[float]:
    """The losses of ten steps by processes that end after so many steps each."""
    code = "import sys, gpu.steps; from embedtrain.cli.train import main; "
    code += "gpu.steps.as_ddp(); " if name.startswith("DDP") else ""
    words = setting.words(
        name, "trainer.max_steps=10", "trainer.precision=32-true", "trainer.checkpoint_every_n_steps=5",
        "backbone.packing=false", *more,  # on a CPU one process would pack and FSDP not: other dropout masks
    )  # fmt: skip
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    for end in ends:
        stopping = f"gpu.steps.stop_at({end}); " * (end < 10)
        done = subprocess.run(
            [sys.executable, "-c", f"{code}{stopping}main()", *words],
            env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != (9 if end < 10 else 0):
            raise RuntimeError(f"{name}: status {done.returncode}: {done.stderr[-800:]}")
    return losses_of(setting.folder / name)


def as_ddp() -> None:
    """Let a run of this process be one of DDP, whose single rank `trainer` would leave out."""
    chosen = trainer_module._strategy

    def strategy(settings: object) -> object:
        made = chosen(settings)
        if isinstance(made, DDPStrategy):
            return made
        on_gpu = settings.accelerator in ("gpu", "cuda")
        return DDPStrategy(process_group_backend="nccl" if on_gpu else "gloo")

    trainer_module._strategy = strategy


def stop_at(step: int) -> None:
    """Let the run of this process end early, as if it were killed."""
    batch_start = TrainingProgress.on_train_batch_end

    def end(self: TrainingProgress, trainer: object, *rest: object) -> None:
        batch_start(self, trainer, *rest)
        if trainer.global_step == step + 1:
            os._exit(9)

    TrainingProgress.on_train_batch_end = end
