"""mteb's classification without its slow label reads; the scores are the same to the last digit.

Since datasets 4, `dataset["label"]` is a lazy column that decodes one element at a time. mteb's few-shot
sampling and scikit-learn's metrics read it element by element, a million times for a task of Banking77's
size: 19-36 CPU-seconds per sub-model where the arithmetic takes one.
"""

from __future__ import annotations

from typing import Any


class PlainLabels:
    """Put before a classification task class: its methods see labels as a list. Written for mteb 2.26."""

    def _undersample_data(self, dataset: Any, experiment_num: int, idxs: list[int] | None = None) -> Any:  # noqa: ANN401
        return super()._undersample_data(_Lists(dataset), experiment_num, idxs)  # type: ignore[misc]

    def _run_experiment(self, train_split: Any, eval_split: Any, *vectors: Any, **settings: Any) -> Any:  # noqa: ANN401
        return super()._run_experiment(_Lists(train_split), _Lists(eval_split), *vectors, **settings)  # type: ignore[misc]


class _Lists:
    """A datasets.Dataset whose columns come as lists."""

    def __init__(self, dataset: Any) -> None:  # noqa: ANN401
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, column: str) -> list[Any]:
        return list(self._dataset[column][:])

    def select(self, rows: list[int]) -> Any:  # noqa: ANN401
        return self._dataset.select(rows)


def with_plain_labels(task: Any) -> Any:  # noqa: ANN401 (an mteb task)
    """The task; for mteb's plain classification a copy whose labels are read as lists."""
    from mteb.abstasks import AbsTaskClassification

    stock = isinstance(task, AbsTaskClassification) and all(
        getattr(type(task), method) is getattr(AbsTaskClassification, method)
        for method in ("_undersample_data", "_run_experiment")
    )
    if not stock:
        return task
    plain = type(type(task).__name__, (PlainLabels, type(task)), {})()
    vars(plain).update(vars(task))
    return plain
