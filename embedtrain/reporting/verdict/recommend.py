"""The cell to ship: the cheapest that loses little, or the best within a budget."""

from __future__ import annotations

from collections.abc import Mapping

from embedtrain.files.measured.verdict import Cut
from embedtrain.reporting.cells import Cells
from embedtrain.reporting.verdict.facts import Wanted
from embedtrain.types import Cell


def recommended(
    scores: Cells, whole: Cell, wanted: Wanted, ms: Mapping[int, float], query_ms: Mapping[int, float]
) -> Cut | None:
    """The cell to ship; None where the whole model was not measured or scores 0, or nothing fits the budget.

    Without a budget: of the cells that keep 1 - tolerance of the whole model's score, the one with the least
    layers x bytes a vector. With one: of the cells within it, the one with the best score. Of equal ones the
    shallower, then the smaller.

    Args:
        scores: mean over tasks of each cell, x 100.
        whole: the cell of the whole model in float32.
        wanted: tolerance and budget.
        ms: milliseconds a text in a batch of each layer that was measured.
        query_ms: the same of one query.
    """
    best = scores.get(whole, 0.0)
    if best <= 0:
        return None
    if wanted.max_bytes is None and wanted.max_ms is None:
        good = [cell for cell, score in scores.items() if score >= (1 - wanted.tolerance) * best]
        chosen = min(good, key=lambda cell: (price(cell), *_order(cell, scores)), default=None)
        why = f"the cheapest that keeps {1 - wanted.tolerance:.0%} of the whole model"
    else:
        good = [cell for cell in scores if _fits(cell, wanted, ms)]
        chosen = min(good, key=lambda cell: (-scores[cell], *_order(cell, scores)), default=None)
        why = "the best within " + " and ".join(_budget(wanted))
    if chosen is None:
        return None
    score = scores[chosen]
    return Cut(
        *chosen, why, score, best, score / best, chosen.bytes_per_vector,
        ms.get(chosen.layer), query_ms.get(chosen.layer),
    )  # fmt: skip


def price(cell: Cell) -> int:
    """What a cell costs to run and to store, as one number: layers x bytes a vector."""
    return cell.layer * cell.bytes_per_vector


def _order(cell: Cell, scores: Cells) -> tuple[int, int, float, str]:
    return cell.layer, cell.bytes_per_vector, -scores[cell], cell.dtype


def _fits(cell: Cell, wanted: Wanted, ms: Mapping[int, float]) -> bool:
    small = wanted.max_bytes is None or cell.bytes_per_vector <= wanted.max_bytes
    return small and (wanted.max_ms is None or ms.get(cell.layer, float("inf")) <= wanted.max_ms)


def _budget(wanted: Wanted) -> list[str]:
    said = [] if wanted.max_bytes is None else [f"{wanted.max_bytes} bytes a vector"]
    return said if wanted.max_ms is None else [*said, f"{wanted.max_ms:g} ms a text"]
