"""Milliseconds a text of each layer, measured: one query alone, and a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from embedtrain.evaluation.sweeping.cost import lengths
from embedtrain.files.measured.cost import Speed
from embedtrain.model.encoder import Encoder
from embedtrain.types import Role

Clock = Callable[[], float]
QUERY = "how do i keep a small garden green in a hot and dry summer"
PASSAGE = 3 * "water the plants early in the morning and cover the ground with straw so that it stays wet "
BATCH = 32  # texts of a batch
WARM_UP = 2  # calls
MOST, FEWEST = 10, 3  # calls that count
ENOUGH = 1.0  # seconds of calls that count, after which no more than FEWEST are made
SLOW = 10.0  # seconds of one call, after which one call counts


def speeds(encoder: Encoder, layers: Sequence[int], run: str) -> list[Speed]:
    """Two lines a layer: one query at a time, and a batch of documents.

    Args:
        encoder: what is measured, where it is.
        layers: blocks that are run.
        run: the name that the lines bear.
    """
    query = [_speed(encoder, [QUERY], "query", layer, run) for layer in layers]
    return query + [_speed(encoder, [PASSAGE] * BATCH, "document", layer, run) for layer in layers]


def _speed(encoder: Encoder, texts: list[str], role: Role, layer: int, run: str) -> Speed:
    warm_up, calls = timed(lambda: encoder.encode(texts, [layer], role))
    each = [1000 * seconds / len(texts) for seconds in calls]
    device = next(encoder.backbone.parameters()).device.type
    (tokens,) = lengths(encoder, texts[:1])
    return Speed(
        run, layer, len(texts), tokens, warm_up, len(each), median(each), min(each), max(each),
        device, torch.get_num_threads(),
    )  # fmt: skip


def timed(call: Callable[[], object], clock: Clock = time.perf_counter) -> tuple[int, list[float]]:
    """How many calls did not count, and the seconds of each that did."""

    def seconds() -> float:
        begun = clock()
        call()
        return clock() - begun

    warm_up, slowest, calls = 0, 0.0, list[float]()
    while warm_up < WARM_UP and slowest <= SLOW:
        warm_up, slowest = warm_up + 1, seconds()
    least = FEWEST if slowest <= SLOW else 1
    while len(calls) < least or (len(calls) < MOST and sum(calls) < ENOUGH):
        calls.append(seconds())
    return warm_up, calls
