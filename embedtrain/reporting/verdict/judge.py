"""The verdict of a run from its facts, and the few lines that say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from embedtrain.files.measured.cost import Speed
from embedtrain.files.measured.verdict import Change, Cut, Finding, Verdict
from embedtrain.files.measured.weights import Weights
from embedtrain.reporting.cells import cells
from embedtrain.reporting.verdict.cuts import collapsing_cuts
from embedtrain.reporting.verdict.facts import Facts
from embedtrain.reporting.verdict.learning import forgetting, learning_rate, temperature
from embedtrain.reporting.verdict.movement import merged_to_nothing, unchanged_weights
from embedtrain.reporting.verdict.negatives import mostly_false, mostly_removed
from embedtrain.reporting.verdict.recommend import recommended
from embedtrain.types import Cell, InputError

Diagnosis = Callable[[Facts], Finding | None]
DIAGNOSES: tuple[Diagnosis, ...] = (
    unchanged_weights,
    merged_to_nothing,
    learning_rate,
    forgetting,
    temperature,
    mostly_removed,
    mostly_false,
    collapsing_cuts,
)
SHOWN = 3  # tasks that a line names


def judged(facts: Facts) -> Verdict:
    """What the run is worth."""
    cut, found = cut_of(facts), tuple(item for look in DIAGNOSES if (item := look(facts)) is not None)
    lines = [
        *_moved(facts.weights),
        *_changed(facts.changes),
        *_ship(facts, cut),
        *(line for item in found for line in (f"{item.name}: {item.text}", f"  try: {item.cure}")),
    ]
    moved = None if facts.weights is None else facts.weights.moved
    return Verdict(facts.run, facts.step, tuple(lines), tuple(facts.changes), cut, found, moved)


def cut_of(facts: Facts) -> Cut | None:
    """The cell to ship; None without scores, or where not all cells have the same tasks."""
    try:
        means = cells(facts.scores)
    except InputError:
        return None
    ms, query_ms = speed_of(facts.cost)
    return recommended(means, Cell(*facts.whole), facts.wanted, ms, query_ms)


def speed_of(lines: Sequence[Speed]) -> tuple[dict[int, float], dict[int, float]]:
    """Milliseconds a text in a batch and of one query, by layer."""
    batch = {line.layer: line.ms for line in lines if line.texts > 1}
    return batch, {line.layer: line.ms for line in lines if line.texts == 1}


def _moved(weights: Weights | None) -> list[str]:
    if weights is None:
        return []
    blocks = [block for block in weights.blocks if block.block != "pooling"] or weights.blocks
    most = max(blocks, key=lambda block: block.moved, default=None)
    said = f"weights: {weights.moved:.0%} of the numbers changed"
    if most is not None and most.moved > 0:
        place = f"block {most.block}" if most.block.isdigit() else most.block
        said += f", {place} most (by {most.moved:.2%} of its size)"
    if weights.cuts:
        cosines = [cut.cosine for cut in weights.cuts]
        said += f"; vectors before and after have cosines of {min(cosines):.2f} to {max(cosines):.2f}"
    return [said]


def _changed(changes: Sequence[Change]) -> list[str]:
    if not changes:
        return []
    counted = Counter[str](change.verdict or "without items" for change in changes)
    order = ("better", "worse", "not distinguishable", "without items")
    said = ", ".join(f"{counted[word]} {word}" for word in order if counted[word])
    first = sorted(changes, key=lambda change: -abs(change.difference))[:SHOWN]
    return [f"tasks: {said} ({'; '.join(map(_change, first))})"]


def _change(change: Change) -> str:
    said = f"{change.task} {100 * change.before:.1f} → {100 * change.after:.1f}"
    if change.low is None or change.high is None:
        return said
    return f"{said}, {100 * change.low:+.1f} to {100 * change.high:+.1f}"


def _ship(facts: Facts, cut: Cut | None) -> list[str]:
    if cut is None:
        limited = facts.wanted.max_bytes is not None or facts.wanted.max_ms is not None
        return ["ship: no measured cell is within the budget"] if facts.scores and limited else []
    cell = Cell(cut.layer, cut.dim, cut.dtype)
    speed = "" if cut.ms is None else f", {cut.ms:.2g} ms a text"
    said = f"ship: {cell}, {cut.why}: {cut.score:.1f} of {cut.best:.1f} ({cut.share:.1%})"
    return [f"{said}, {cut.bytes_per_vector:,} bytes a vector{speed}"]
