"""metrics.jsonl as curves that a browser draws at once: long ones by the extremes of their parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedtrain.files.measured.metrics import METRICS, read_metrics
from embedtrain.files.reading import reason_of

POINTS = 400  # of a curve at most
SERIES = 240  # of a run at most


def curves_of(folder: Path, problems: list[str]) -> dict[str, Any]:
    """`steps`: lists of steps; `series`: name -> (number of its list, values); `last`: step, or None.

    Values have five digits and are None where they are no number. A run of several stages has the curves of
    each earlier one under `<stage>: <name>`. What cannot be read is a sentence in `problems`.
    """
    raw: dict[str, tuple[list[int], list[float]]] = {}
    last: int | None = None
    for path in [*sorted(folder.glob(f"stages/*/{METRICS}")), folder / METRICS]:
        prefix = "" if path.parent == folder else f"{path.parent.name}: "
        try:
            lines = read_metrics(path)
        except Exception as error:  # a file of anybody
            problems.append(reason_of(error).removeprefix("InputError: "))
            continue
        for line in lines:
            for name, value in line.values.items():
                steps, values = raw.setdefault(f"{prefix}{name}", ([], []))
                steps.append(line.step)
                values.append(value)
        if not prefix and lines:
            last = lines[-1].step
    lists: dict[tuple[int, ...], int] = {}
    series = {}
    for name in sorted(raw)[:SERIES]:
        steps, values = thinned(*raw[name], POINTS)
        number = lists.setdefault(tuple(steps), len(lists))
        series[name] = (number, [float(f"{value:.5g}") if math.isfinite(value) else None for value in values])
    note = f"The first {SERIES} of {len(raw)} metrics are shown" if len(raw) > SERIES else ""
    return {"steps": [list(steps) for steps in lists], "series": series, "last": last, "note": note}


def thinned(steps: Sequence[int], values: Sequence[float], most: int) -> tuple[list[int], list[float]]:
    """At most `most` points: the first and last, and of each part of the rest its least and greatest."""
    if len(steps) <= most:
        return list(steps), list(values)
    chosen = {0, len(steps) - 1}
    parts = (most - 2) // 2
    for part in range(parts):
        start, end = part * len(steps) // parts, (part + 1) * len(steps) // parts
        inside = range(start, end)
        known = [place for place in inside if math.isfinite(values[place])] or [start]
        chosen |= {min(known, key=values.__getitem__), max(known, key=values.__getitem__)}
    kept = sorted(chosen)
    return [steps[place] for place in kept], [values[place] for place in kept]
