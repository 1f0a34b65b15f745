"""mteb's own tables of a result tree, a row for each cell. Importing this module imports mteb.

mteb's `BenchmarkResults.to_dataframe` has one row a model: it averages the experiments, that is the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mteb
import pandas as pd
from mteb.abstasks import AbsTask
from mteb.benchmarks import Benchmark
from mteb.results import BenchmarkResults

from embedtrain.evaluation.mteb_private import known_to_mteb
from embedtrain.types import InputError


def results_of(tree: Path, tasks: Benchmark | None = None) -> BenchmarkResults:
    """What mteb reads of a result tree (`mteb/` beside scores.jsonl), the experiments among it.

    Raises:
        InputError: if the tree has no result.
    """
    places = sorted(path.name for path in (Path(tree) / "results").glob("*"))
    names = [place.replace("__", "/", 1) for place in places]
    cache = mteb.ResultCache(tree)
    found = cache.load_results(
        models=names, tasks=tasks, include_remote=False, load_experiments="match_name"
    ) if names else None  # fmt: skip
    if found is None or not found.model_results:
        raise InputError(f"{tree} has no results; give the mteb folder of an evaluation")
    return found


def tidy(tree: Path) -> pd.DataFrame:
    """A row for each (model, revision, cell, task, split, subset) with its main score.

    Columns: model, revision, the settings of the experiments (`embed_dim`, `n_layers`, ...; NaN in rows of
    the full float32 model), task, split, subset, score.

    Raises:
        InputError: if the tree has no result.
    """
    rows = [
        {"model": model.model_name, "revision": model.model_revision}
        | dict((model.model_meta.experiment_kwargs if model.model_meta else None) or {})
        | {"task": task.task_name, "split": split, "subset": part["hf_subset"], "score": part["main_score"]}
        for model in results_of(tree).model_results
        for task in model.task_results
        for split, parts in task.scores.items()
        for part in parts
    ]
    return pd.DataFrame(rows)


def benchmark_table(tree: Path, name: str, tasks: Sequence[AbsTask]) -> pd.DataFrame:
    """Mteb's leaderboard of a result tree, a row for each cell (`_experiment_id`, empty for the full model).

    mteb makes it of models and tasks that it knows by name, so those of the tree and one's own tasks are made
    known to it for as long as that takes.

    Raises:
        InputError: if the tree has no result of these tasks.
    """
    results = results_of(tree, Benchmark(name=name, tasks=tuple(tasks)))
    models = [(model.model_name, model.model_meta) for model in results.model_results]
    with known_to_mteb([(name, meta) for name, meta in models if meta is not None], tasks):
        return results.get_benchmark_result()
