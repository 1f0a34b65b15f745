"""Whole grids compared: of one cell as that cell, of several the mean of what is drawn together."""

import numpy as np
import pytest

from embedtrain.evaluation.comparing.grids import compare_grids
from embedtrain.evaluation.comparing.runs import Run
from embedtrain.evaluation.comparing.statistics import Settings, compare
from embedtrain.evaluation.per_item.stored import About, ItemValues, items_file, read_items, write_items
from embedtrain.types import Cell, InputError, Score

CELLS, SETTINGS = (
    [Cell(1, 8, "float32"), Cell(2, 16, "float32")],
    Settings(resamples=400, interval="percentile"),
)
KIND = {"near": ("mean", "ndcg_at_10"), "alike": ("spearman", "cosine_spearman")}


def a_run(folder, name, shift, *, tasks=KIND, seed=0):
    draw, scores = np.random.default_rng(seed), {}
    for task in tasks:
        statistic, metric = KIND[task]
        gold = draw.normal(size=60) if statistic == "spearman" else np.zeros(60)
        for cell in CELLS:
            values = (draw.normal(size=60) + gold + shift * np.linspace(0, 1, 60))[:, None]
            where = (task, "test", cell.layer, cell.dim)
            about = About(name, 1, *where, "float32", "w", "d", "2", ("default",), {metric: statistic})
            items = ItemValues(about, np.arange(60), np.zeros(60, np.int64), gold, {metric: values})
            write_items(items_file(folder, task, step=1, cell=str(cell), split="test"), items)
            scores.setdefault((task, "test"), {})[cell] = Score(name, 1, *where, metric, 0.0, "float32")
    return Run(name, folder, 1, scores)


@pytest.fixture
def two(tmp_path):
    return a_run(tmp_path / "a", "a", 0.0), a_run(tmp_path / "b", "b", 1.0)


@pytest.mark.parametrize("task", KIND)
def test_one_cell_of_one_task_is_compared_as_by_itself(task, two):
    first, second = (run._replace(scores={(task, "test"): run.scores[task, "test"]}) for run in two)
    samples = (
        read_items(items_file(run.folder, task, step=1, cell=str(CELLS[0]), split="test")).sample()
        for run in two
    )
    alone, grid = compare(*samples, SETTINGS), compare_grids(first, second, CELLS[:1], SETTINGS)
    expected = (alone.first, alone.second, alone.difference, alone.low, alone.high)
    assert (grid.first, grid.second, grid.difference, grid.low, grid.high) == pytest.approx(expected)


def test_a_grid_is_the_mean_over_cells_then_tasks(two):
    grid = compare_grids(*two, CELLS, SETTINGS)
    parts = [
        compare_grids(*(run._replace(scores={key: run.scores[key]}) for run in two), [cell], SETTINGS)
        for key in two[0].scores
        for cell in CELLS
    ]
    assert grid.difference == pytest.approx(np.mean([part.difference for part in parts]))
    assert grid.low < grid.difference < grid.high
    assert grid.high - grid.low < max(part.high - part.low for part in parts)


def test_a_run_against_itself_is_no_difference(two):
    grid = compare_grids(two[0], two[0], CELLS, SETTINGS)
    assert (grid.difference, grid.low, grid.high, grid.p) == (0, 0, 0, 1)


def test_other_tasks_are_refused(two, tmp_path):
    other = a_run(tmp_path / "c", "c", 0.0, tasks=["near"])
    with pytest.raises(InputError, match=r"c has no scores of alike \(test\)"):
        compare_grids(two[0], other, CELLS, SETTINGS)
