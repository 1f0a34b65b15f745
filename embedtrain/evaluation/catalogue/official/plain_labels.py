"""mteb's classification without its slow reads; the scores are the same to the last digit.

Since datasets 4, `dataset["label"]` is a lazy column that decodes one element at a time. mteb's few-shot
sampling and scikit-learn's metrics read it element by element, a million times for a task of Banking77's
size: 19-36 CPU-seconds per sub-model where the arithmetic takes one. The texts are read so once a sub-model.
"""

from __future__ import annotations

from typing import Any

from embedtrain.evaluation.mteb_private import CLASSIFY, Untyped


class PlainLabels:
    """Put before a classification task class: its methods see columns as lists."""

    def _evaluate_subset(self, model: Untyped, data_split: Untyped, **settings: Untyped) -> Untyped:
        if self.metadata.modalities == ["text"] and isinstance(self.input_column_name, str):  # type: ignore[attr-defined]
            data_split = {name: Lists(split) for name, split in data_split.items()}
        return super()._evaluate_subset(model, data_split, **settings)  # type: ignore[misc]

    def _undersample_data(self, dataset: Untyped, *settings: Untyped) -> Untyped:
        return super()._undersample_data(Lists(dataset), *settings)  # type: ignore[misc]

    def _run_experiment(
        self, train_split: Untyped, eval_split: Untyped, *vectors: Untyped, **settings: Untyped
    ) -> Untyped:
        splits = Lists(train_split), Lists(eval_split)
        return super()._run_experiment(*splits, *vectors, **settings)  # type: ignore[misc]


class Lists:
    """A datasets.Dataset, or some rows of it, whose columns come as lists; each is read once."""

    def __init__(self, dataset: Untyped, rows: list[int] | None = None) -> None:
        self._dataset = dataset
        self._rows = rows
        self._columns: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return len(self._dataset) if self._rows is None else len(self._rows)

    def __getitem__(self, column: str) -> list[Any]:
        if column not in self._columns:
            whole = self._dataset[column][:]
            self._columns[column] = list(whole) if self._rows is None else [whole[row] for row in self._rows]
        return self._columns[column]

    def select(self, rows: list[int]) -> Lists:
        """Some of the rows."""
        return Lists(self, rows)


def with_plain_labels(task: Untyped) -> Untyped:
    """The task; for mteb's plain classification a copy whose labels are read as lists."""
    from mteb.abstasks import AbsTaskClassification

    stock = isinstance(task, AbsTaskClassification) and all(
        getattr(type(task), method) is getattr(AbsTaskClassification, method) for method in CLASSIFY
    )
    if not stock:
        return task
    plain = type(type(task).__name__, (PlainLabels, type(task)), {})()
    vars(plain).update(vars(task))
    return plain
