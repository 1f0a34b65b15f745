"""The lines of health.jsonl of one task, after its texts are encoded and while the bank holds them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from embedtrain.evaluation.health.geometry import centred, geometry
from embedtrain.evaluation.health.sampled import sampled
from embedtrain.evaluation.mteb_private import Untyped
from embedtrain.evaluation.vectors.bank import GridBank
from embedtrain.files.measured.health import Health
from embedtrain.types import SubModel

FEWEST = 4  # texts


def health_of(
    task: Untyped, bank: GridBank, subs: Sequence[SubModel], *, run: str, step: int, weights: str
) -> list[Health]:
    """A line a sub-model; none where the bank holds too few texts, or vectors that are not finite.

    Args:
        task: whose texts they are; its data are loaded.
        bank: what holds their vectors; nothing is encoded.
        subs: the sub-models, each once.
        run: the name its lines bear.
        step: optimiser steps it was trained.
        weights: hash of the weights.
    """
    sample = sampled(task, bank)
    if len(sample.texts) < FEWEST:
        return []
    largest = max(subs)  # the last layer at its largest dim
    unit = bank.of(sample.texts, largest).numpy()
    if not np.isfinite(unit).all():
        return []
    reference = centred(unit.astype(np.float64) @ unit.T.astype(np.float64))
    lines = []
    for sub in sorted(subs):
        found = geometry(bank.of(sample.texts, sub).numpy(), sample.pairs, reference)
        line = Health(
            run, step, task.metadata.name, sub.layer, sub.dim, weights, len(sample.texts),
            pairs=len(sample.pairs), **found._asdict(),
        )  # fmt: skip
        if math.isfinite(line.uniformity + line.effective_rank + line.cka):
            lines.append(line)
    return lines
