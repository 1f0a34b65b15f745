"""All that this package uses of mteb beyond its public names, and how mteb leaves its caller as it was.

Written for mteb 2.26; tests/evaluation/test_mteb_private.py says what another version lacks. mteb takes 4-5
seconds to import, so it is imported on use.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embedtrain.types import Role

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.models import ModelMeta

Untyped = Any  # an object of mteb or datasets: neither has types
# Methods that we call, cover or override, by class of `mteb.abstasks`.
SAVE_PREDICTIONS = "_save_task_predictions"  # is given what a task predicted
SCORE_QUERIES = "task_specific_scores"  # is given the scores of each query
CLASSIFY = ("_evaluate_subset", "_undersample_data", "_run_experiment")
METHODS = {
    "AbsTask": (SAVE_PREDICTIONS, "_calculate_descriptive_statistics_from_split"),
    "AbsTaskRetrieval": (SCORE_QUERIES,),
    "AbsTaskClassification": CLASSIFY,
}
_LOGGERS = ("mteb", "datasets", "sentence_transformers", "huggingface_hub", "httpx")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """While open, mteb and its libraries show no progress bars and no warnings."""
    import datasets

    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    bars = datasets.are_progress_bars_disabled()
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            for module in ("mteb", "datasets", "sklearn", "scipy"):
                warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Restores the global generators: mteb seeds them per task, and training would repeat its dropout."""
    python, numpy_state = random.getstate(), np.random.get_state()
    # Without `devices` it would open a context on every GPU of the machine.
    used = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if used else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


def seed(task: Untyped) -> None:
    """Gives a task the generators that it begins with: each cell must draw the same samples."""
    from mteb._set_seed import _set_seed

    task.rng_state, task.np_rng = _set_seed(task.seed)


@contextlib.contextmanager
def scored_on_the_cpu() -> Iterator[None]:
    """While open, mteb compares vectors where they are, not on a GPU, which a fork cannot use."""
    from mteb import similarity_functions

    before = similarity_functions._select_device, similarity_functions._use_torch_compile

    def where_they_are(a: torch.Tensor, b: torch.Tensor) -> torch.device:
        return a.device

    similarity_functions._select_device = where_they_are
    similarity_functions._use_torch_compile = lambda: False  # asks the GPU what it can
    try:
        yield
    finally:
        similarity_functions._select_device, similarity_functions._use_torch_compile = before


def texts_of_table(rows: Untyped, role: Role) -> list[str]:
    """The texts of queries as mteb joins them with their instructions, of documents with their titles."""
    from mteb._create_dataloaders import _retrieval_texts
    from mteb.types import PromptType

    return list(_retrieval_texts(rows, PromptType(role))[:])


def reciprocal_ranks(
    qrels: Mapping[str, Mapping[str, int]], results: Mapping[str, Mapping[str, float]], depth: int
) -> list[float]:
    """The reciprocal rank of each query of `results`, within its best `depth` documents."""
    from mteb._evaluators.retrieval_metrics import mrr

    return list(mrr(dict(qrels), dict(results), [depth])[f"MRR@{depth}"])


def statistics_of(task: AbsTask, split: str, subset: str | None) -> Mapping[str, Any]:
    """The statistics of a task's data at hand, as mteb ships them of the published ones."""
    return task._calculate_descriptive_statistics_from_split(split, hf_subset=subset)


def task_names() -> list[str]:
    """Every task that mteb knows by name."""
    from mteb.get_tasks import _TASKS_REGISTRY

    return list(_TASKS_REGISTRY)


def benchmark_names() -> list[str]:
    """Every benchmark that mteb knows, and their aliases."""
    from mteb.benchmarks.get_benchmark import _build_aliases_registry, _build_registry

    return [*_build_registry(), *_build_aliases_registry()]


def mock_tasks() -> list[AbsTask]:
    """Copies of mteb's own mock tasks of text, which need no data."""
    from mteb.mocks import ALL_MOCK_TASK_TEST_GRID

    grid = (task for task in ALL_MOCK_TASK_TEST_GRID if task.metadata.modalities == ["text"])
    return list({task.metadata.name: copy.copy(task) for task in grid}.values())


def is_mock(task: AbsTask) -> bool:
    """Whether a task is one of mteb's mock tasks."""
    return any(made.__module__.startswith("mteb.mocks") for made in type(task).__mro__)


def hub_type(task: AbsTask) -> str:
    """What the Hugging Face hub calls the type of a task."""
    return str(task.metadata._hf_task_type()[0])


@contextlib.contextmanager
def known_to_mteb(models: Iterable[tuple[str, ModelMeta]], tasks: Sequence[AbsTask]) -> Iterator[None]:
    """While open, mteb finds these models and tasks by name: its leaderboard is made of those it knows."""
    from mteb.benchmarks import _create_table
    from mteb.get_tasks import _TASKS_REGISTRY
    from mteb.models.model_implementations import MODEL_REGISTRY

    def forget() -> None:
        """Empties what mteb remembers of its registry of models, which it takes to be complete."""
        for remembered in vars(_create_table).values():
            if hasattr(remembered, "cache_clear"):
                remembered.cache_clear()

    before = dict(MODEL_REGISTRY), dict(_TASKS_REGISTRY)
    try:
        for name, meta in models:
            if name not in MODEL_REGISTRY:
                MODEL_REGISTRY[name] = meta.model_copy(update={"experiment_kwargs": None})
        for task in tasks:
            _TASKS_REGISTRY.setdefault(task.metadata.name, type(task))
        forget()
        yield
    finally:
        MODEL_REGISTRY.clear()
        MODEL_REGISTRY.update(before[0])
        _TASKS_REGISTRY.clear()
        _TASKS_REGISTRY.update(before[1])
        forget()
