"""How long the run takes, from measured steps that change no weight."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from embedtrain.console import duration
from embedtrain.data.order.run_plan import Part
from embedtrain.doctor.findings import Finding, percent
from embedtrain.doctor.patient import Look, Patient
from embedtrain.doctor.training_step import forward_and_backward

CHECK = "speed"
STEPS = 2  # measured, after one that is slow only because it is the first
ENOUGH = 10.0  # seconds of measuring
WAITING = 0.1  # share of a step spent on data


class Speed(NamedTuple):
    """Of one rank, measured."""

    tokens: float  # a second, without padding
    data: float  # seconds to make one global batch, without workers


def measured(patient: Patient, look: Look) -> Speed:
    """Up to two steps on a batch and the making of two others; one before to warm up."""
    begun = time.perf_counter()
    forward_and_backward(patient, look)
    seconds = time.perf_counter() - begun
    if seconds < ENOUGH:  # a longer one is hardly slower for being the first
        seconds = _seconds(lambda _: forward_and_backward(patient, look))
    steps = patient.data.steps()
    last = patient.data.total_steps - 1
    making = _seconds(lambda number: steps[min(number, last)])
    return Speed(int(look.batch.inputs.mask.sum()) / seconds, making)


def speed_finding(
    patient: Patient, every: Sequence[Look], speed: Speed, parts: Sequence[Part], workers: int
) -> Finding:
    """Seconds a step, the time of the whole run, and the share that data take.

    Args:
        patient: whose run it is.
        every: a batch of each dataset.
        speed: what was measured on one of them.
        parts: how often each dataset trains.
        workers: processes that make batches ahead.
    """
    tokens = mean_tokens(every, parts)
    step = patient.accumulate * tokens / patient.ranks / speed.tokens
    data = patient.accumulate * speed.data / patient.ranks
    waited = data if not workers else max(0.0, data / workers - step)
    steps = patient.data.total_steps // patient.accumulate
    whole = steps * (step + waited)
    share = waited / (step + waited)
    several = f" on each of {patient.ranks} ranks" if patient.ranks > 1 else ""
    return Finding(
        CHECK,
        "note" if share > WAITING else "ok",
        f"{speed.tokens:,.0f} tokens a second{several} on {patient.device}, about {step + waited:.3g} s a "
        f"step, {duration(whole)} for {steps:,} steps without validation and evaluation; "
        f"{percent(share, 1)} of it waiting for data",
        "Make batches ahead: data.num_workers=2." if share > WAITING and not workers else "",
        facts={
            "tokens_per_second": speed.tokens,
            "seconds_per_step": step + waited,
            "seconds_of_data": data,
            "share_of_data": share,
            "steps": steps,
            "seconds": whole,
        },
    )


def mean_tokens(every: Sequence[Look], parts: Sequence[Part]) -> float:
    """Tokens of a global batch in the mean over the run."""
    often = {part.task: float(part.batches or 0) for part in parts}
    weights = [often.get(look.task, 1.0) for look in every]
    sizes = [int(look.whole.inputs.mask.sum()) for look in every]
    return sum(weight * size for weight, size in zip(weights, sizes, strict=True)) / sum(weights)


def _seconds(run: Callable[[int], object]) -> float:
    """Of one run, the least of a few: whatever else the machine does only adds."""
    found: list[float] = []
    for number in range(STEPS):
        begun = time.perf_counter()
        run(number)
        found.append(time.perf_counter() - begun)
        if sum(found) > ENOUGH:
            break
    return min(found)
