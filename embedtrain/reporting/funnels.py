"""Funnels beside the single cells they are made of: quality and cost of a search."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.table import Table

from embedtrain.escaping import add_row
from embedtrain.files.scores import main_scores
from embedtrain.types import Score


class Search(NamedTuple):
    """What a search of a task finds and costs: of a funnel, or of one of its cells over all documents."""

    task: str
    name: str  # funnel(...) or L6_D384
    score: float  # main metric x 100
    multiply_adds: float  # of a query
    share: float  # of searching all documents with the largest dim
    is_funnel: bool


def searches(scores: Sequence[Score]) -> list[Search]:
    """Each task's funnels after the cells that they are made of; none where no funnel was measured.

    Args:
        scores: of one run and step.
    """
    costs = {_place(score): score.value for score in scores if score.metric == "search_multiply_adds"}
    shares = {_place(score): score.value for score in scores if score.metric == "search_share"}
    main = main_scores(scores) if costs else []
    found = []
    for task, split in dict.fromkeys((score.task, score.split) for score in main if _place(score) in costs):
        here = [score for score in main if (score.task, score.split) == (task, split)]
        funnels = [score for score in here if _place(score) in costs and shares.get(_place(score))]
        if not funnels:
            continue
        parts = {part for score in funnels for part in re.findall(r"L\d+_D\d+", score.dtype)}
        singles = [score for score in here if score.dtype == "float32" and _name(score) in parts]
        documents = costs[_place(funnels[0])] / shares[_place(funnels[0])] / funnels[0].dim
        full = documents * max(score.dim for score in [*funnels, *singles])
        for score in [*singles, *funnels]:
            cost, is_funnel = costs.get(_place(score), documents * score.dim), score not in singles
            name = score.dtype if is_funnel else _name(score)
            found.append(Search(task, name, 100 * score.value, cost, cost / full, is_funnel))
    return found


def funnel_table(scores: Sequence[Score]) -> Table | None:
    """A block a task: each funnel after its cells, main metric x 100, multiply-adds of a query's search.

    None where the scores, of one run and step, have no funnel.
    """
    rows = searches(scores)
    if not rows:
        return None
    table = Table(title="search through funnels", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("task", "search"):
        table.add_column(name, overflow="fold")
    for name in ("metric x 100", "multiply-adds", "of a full search"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = f"{row.score:.2f}", f"{row.multiply_adds:,.0f}", f"{row.share:.1%}"
        add_row(table, row.task, row.name, *numbers)
    return table


def _place(score: Score) -> tuple[str, str, str]:
    return score.task, score.split, score.dtype


def _name(score: Score) -> str:
    return f"L{score.layer}_D{score.dim}"
