"""How long the run takes, from measured steps that change no weight."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from lightning_fabric.utilities import move_data_to_device

from embedtrain.console import duration
from embedtrain.data.order.run_plan import Part
from embedtrain.doctor.built_run import BuiltRun, FirstBatch
from embedtrain.doctor.findings import Finding, finding, percent
from embedtrain.training.steps.contrastive.step import ContrastiveStep
from embedtrain.training.steps.protocol import Context

CHECK = "speed"
STEPS = 2  # measured, after one that is slow only because it is the first
ENOUGH = 10.0  # seconds of measuring
WAITING = 0.1  # share of a step spent on data


class Speed(NamedTuple):
    """Of one rank, measured."""

    tokens: float  # a second, without padding
    data: float  # seconds to make one global batch, without workers


def measured(run: BuiltRun, first: FirstBatch) -> Speed:
    """Up to two steps on a batch and the making of two others; one before to warm up."""
    begun = time.perf_counter()
    forward_and_backward(run, first)
    seconds = time.perf_counter() - begun
    if seconds < ENOUGH:  # a longer one is hardly slower for being the first
        seconds = _seconds(lambda _: forward_and_backward(run, first))
    steps = run.data.steps()
    last = run.data.total_steps - 1
    making = _seconds(lambda number: steps[min(number, last)])
    return Speed(int(first.batch.inputs.mask.sum()) / seconds, making)


def speed_finding(
    run: BuiltRun, every: Sequence[FirstBatch], speed: Speed, parts: Sequence[Part], workers: int
) -> Finding:
    """Seconds a step, the time of the whole run, and the share that data take."""
    tokens = mean_tokens(every, parts)
    step = run.accumulate * tokens / run.ranks / speed.tokens
    data = run.accumulate * speed.data / run.ranks
    waited = data if not workers else max(0.0, data / workers - step)
    steps = run.data.total_steps // run.accumulate
    whole = steps * (step + waited)
    share = waited / (step + waited)
    several = f" on each of {run.ranks} ranks" if run.ranks > 1 else ""
    return finding(
        CHECK,
        "note" if share > WAITING else "ok",
        f"{speed.tokens:,.0f} tokens a second{several} on {run.device}, about {step + waited:.3g} s a "
        f"step, {duration(whole)} for {steps:,} steps without validation and evaluation; "
        f"{percent(share, 1)} of it waiting for data",
        "" if workers else "Make batches ahead: data.num_workers=2.",
        tokens_per_second=speed.tokens,
        seconds_per_step=step + waited,
        seconds_of_data=data,
        share_of_data=share,
        steps=steps,
        seconds=whole,
    )


def mean_tokens(every: Sequence[FirstBatch], parts: Sequence[Part]) -> float:
    """Tokens of a global batch in the mean over the run."""
    often = {part.task: float(part.batches or 0) for part in parts}
    weights = [often.get(first.task, 1.0) for first in every]
    sizes = [int(first.whole.inputs.mask.sum()) for first in every]
    return sum(weight * size for weight, size in zip(weights, sizes, strict=True)) / sum(weights)


def forward_and_backward(run: BuiltRun, first: FirstBatch) -> None:
    """Encode, loss, gradient; the gradients are dropped. In the modes that modules are in."""
    step = ContrastiveStep(run.loss, run.encoder.process, gradcache=run.gradcache)
    context = Context(
        run.encoder,
        first.chosen,
        first.step,
        report=lambda _: None,
        seed=lambda chunk: chunk,
        backward=torch.autograd.backward,
    )
    with run.autocast():
        total = step.loss(move_data_to_device(first.batch, run.device), context)
    if total.requires_grad:
        torch.autograd.backward(total)
    for part in (run.encoder, run.loss.objective):
        part.zero_grad(set_to_none=True)
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)


def _seconds(run: Callable[[int], object]) -> float:
    """Of one run, the least of a few: whatever else the machine does only adds."""
    taken: list[float] = []
    while len(taken) < STEPS and sum(taken) <= ENOUGH:
        begun = time.perf_counter()
        run(len(taken))
        taken.append(time.perf_counter() - begun)
    return min(taken)
