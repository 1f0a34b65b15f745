"""Folders of runs with scores and the items that they are made of."""

import numpy as np

from embedtrain.evaluation.per_item.stored import About, ItemValues, items_file, write_items
from embedtrain.files.scores import append_scores
from embedtrain.types import Cell, Score

FULL, HALF, SMALL = Cell(6, 384), Cell(6, 96), Cell(2, 32)
HARD = np.random.default_rng(0).uniform(0.2, 0.8, size=120)  # how hard each item is, for everybody


def write_run(folder, quality, tasks=("one", "two"), seed=0, step=0, data="d0", items=True):
    """A run whose items of a cell are what they are for everybody, and `quality[cell]` more."""
    for number, task in enumerate(tasks):
        for cell, better in quality.items():
            noise = np.random.default_rng([seed, number, *cell[:2]]).normal(0, 0.02, size=len(HARD))
            values, where = HARD + better + noise, (folder.name, step, task, "test")
            score = Score(*where, *cell[:2], "accuracy", float(values.mean()), cell.dtype)
            append_scores(folder / "scores.jsonl", [score])
            about = About(*where, *cell, "w", data, "2.26", ("default",), {"accuracy": "mean"})
            nothing = np.zeros(len(HARD))
            ids = np.arange(len(HARD))
            kept = ItemValues(about, ids, nothing.astype(np.int64), nothing, {"accuracy": values[:, None]})
            if items:
                write_items(items_file(folder, task, step=step, cell=str(cell), split="test"), kept)
    return str(folder)
