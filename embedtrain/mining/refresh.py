"""Negatives mined inside a run: every N steps, by the model in training.

What is found at step N is one file, and the batches of step t use the newest N with N + delay <= t. That is a
function of the step, so a resumed run that makes the later files again trains on the same rows. The delay is
there because batches are made ahead of their step.

Letters: R rows, K negatives, n texts, G width.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback

from embedtrain import ranks
from embedtrain.console import duration
from embedtrain.data.read.sources import Example
from embedtrain.mining.backends import Index, backend, check_index
from embedtrain.mining.mine import BLOCK, Miner
from embedtrain.mining.problem import Problem, Query, problems_of
from embedtrain.mining.selection import Selection
from embedtrain.mining.tables import Table, forget_after, path_of, read_table, write_table
from embedtrain.types import InputError, Role
from embedtrain.vectors.topk import in_memory
from embedtrain.whole_step import whole_step

log = logging.getLogger(__name__)
CPU = torch.device("cpu")
WINDOW = 1_024  # texts between two looks at the clock

Encode = Callable[[Sequence[str], Role, str | None], NDArray[np.float32]]  # texts, role, prompt: (n, G) unit
Asked = tuple[int, int]  # problem, query of it


class Refresh:
    """When negatives are mined again, and how: the `mining` group of a run.

    Args:
        selection: rules and draw, as of `embedtrain-mine`.
        every: optimiser steps between refreshes.
        delay: optimiser steps from a refresh to the first batch that uses it.
        most_queries: queries mined at a refresh, drawn by seed and step; all when None. The others keep what
            they have.
        most_seconds: time after which the queries that are left keep what they have; no limit when None.
            With one, runs repeat only where their refresh files are kept.
        index: what searches, as of `embedtrain-mine`.

    Raises:
        InputError: for a value out of range.
    """

    def __init__(
        self,
        *,
        selection: Selection,
        every: int = 1_000,
        delay: int = 16,
        most_queries: int | None = None,
        most_seconds: float | None = None,
        index: Index = "exact",
    ) -> None:
        for name, value in {"every": every, "delay": delay, "most_queries": most_queries}.items():
            if value is not None and value < 1:
                raise InputError(f"{name} must be 1 or more, got {value}")
        if most_seconds is not None and not most_seconds > 0:
            raise InputError(f"most_seconds must be above 0, got {most_seconds}")
        check_index(index)
        self.selection, self.every, self.delay, self.index = selection, every, delay, index
        self.most_queries, self.most_seconds = most_queries, most_seconds


class Texts(NamedTuple):
    """What there is to mine in the training rows."""

    problems: tuple[Problem, ...]
    prompts: tuple[str | None, ...]  # of each problem: what stands before its documents
    starts: tuple[int, ...]  # number of the first document of each problem among all


def texts_of(rows: Iterable[tuple[int, Example]]) -> Texts:
    """The problems of numbered training rows, queries behind their rows' prompts; no scored rows."""
    listed = [(number, example) for number, example in rows if example.score is None]
    problems = tuple(problems_of(listed, instructions=True))
    by_number = dict(listed)
    prompts = tuple(by_number[int(problem.rows[0])].prompts.document for problem in problems)
    ends = np.cumsum([0, *(len(problem.documents) for problem in problems)]).tolist()
    return Texts(problems, prompts, tuple(ends[:-1]))


class RefreshNegatives(Callback):
    """Mines when due, on all ranks; rank 0 writes.

    Args:
        refresh: when and how.
        texts: what is mined.
        encode: the model in training.
        folder: of the files.
        seed: of draws.
        device: where documents are searched.
    """

    def __init__(
        self,
        refresh: Refresh,
        texts: Texts,
        encode: Encode,
        folder: Path,
        *,
        seed: int,
        device: torch.device = CPU,
    ) -> None:
        self.refresh, self.texts, self.encode = refresh, texts, encode
        self.folder, self.seed, self.device = folder, seed, device

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what was mined after the step that a run continues from, and make up for what is missing."""
        if not ranks.rank():
            forget_after(self.folder, trainer.global_step)
        ranks.wait()
        self._if_due(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Mine after an optimiser step that is due, before it can be saved."""
        if whole_step(trainer):
            self._if_due(trainer)

    def _if_due(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        steps = int(trainer.num_training_batches) // trainer.accumulate_grad_batches
        used = 0 < step and step + self.refresh.delay < steps
        if used and step % self.refresh.every == 0 and not path_of(self.folder, step).exists():
            self.mine(step)

    def mine(self, step: int) -> None:
        """Make the file of a step."""
        begun = time.monotonic()
        end = np.inf if self.refresh.most_seconds is None else begun + self.refresh.most_seconds
        asked = self._asked(step)
        documents = [
            self._encoded([(text, prompt) for text in problem.documents], "document", end)
            for problem, prompt in zip(self.texts.problems, self.texts.prompts, strict=True)
        ]
        whole = [len(found) for found in documents] == [len(p.documents) for p in self.texts.problems]
        queries = self._encoded([self._query(item) for item in asked], "query", end) if whole else None
        if not ranks.rank():
            found: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
            if queries is not None:
                found = self._mined(asked[: len(queries)], queries, documents, step, end)
            before = read_table(self.folder, step - self.refresh.every, self.refresh.selection.per_row)
            write_table(self.folder, step, before.updated(found))
            log.info(
                "step %d: mined negatives for %d of %d rows in %s%s",
                step, len(found), sum(len(problem.rows) for problem in self.texts.problems),
                duration(time.monotonic() - begun),
                "" if whole else "; most_seconds was over before all documents were encoded: raise it",
            )  # fmt: skip
        ranks.wait()

    def _asked(self, step: int) -> list[Asked]:
        """The queries of a step in the order in which they are mined."""
        every = [(place, q) for place, p in enumerate(self.texts.problems) for q in range(len(p.queries))]
        order = np.random.default_rng((self.seed, step)).permutation(len(every))[: self.refresh.most_queries]
        return [every[place] for place in order]

    def _query(self, item: Asked) -> Query:
        return self.texts.problems[item[0]].queries[item[1]]

    def _encoded(
        self, texts: Sequence[tuple[str, str | None]], role: Role, end: float
    ) -> NDArray[np.float16]:
        """(m, G) of the first m texts, all of them if time allows; whole on rank 0, its length on all."""
        parts: list[NDArray[np.float16]] = []
        for start in range(0, len(texts), WINDOW * ranks.world_size()):
            if any(ranks.all_ranks(time.monotonic() > end)):
                break
            mine = start + WINDOW * ranks.rank()
            window = texts[mine : mine + WINDOW]
            found = ranks.all_ranks(self._window(window, role) if window else np.empty((0, 1), np.float16))
            parts += [part if not ranks.rank() else part[:, :0] for part in found if len(part)]
        return np.concatenate(parts) if parts else np.empty((0, 1), np.float16)

    def _window(self, texts: Sequence[tuple[str, str | None]], role: Role) -> NDArray[np.float16]:
        """(n, G), texts of one prompt together."""
        found: dict[int, NDArray[np.float16]] = {}
        for prompt in dict.fromkeys(prompt for _, prompt in texts):
            places = [place for place, (_, mine) in enumerate(texts) if mine == prompt]
            vectors = self.encode([texts[place][0] for place in places], role, prompt).astype(np.float16)
            found |= dict(zip(places, vectors, strict=True))
        return np.stack([found[place] for place in range(len(texts))])

    def _mined(
        self,
        asked: Sequence[Asked],
        queries: NDArray[np.float16],
        documents: Sequence[NDArray[np.float16]],
        step: int,
        end: float,
    ) -> dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Row -> (K,) numbers among all documents and scores, of rows for which something was found."""
        result: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for place, problem in enumerate(self.texts.problems):
            own = np.array([row for row, item in enumerate(asked) if item[0] == place], dtype=np.int64)
            numbers = np.array([asked[row][1] for row in own], dtype=np.int64)
            every = np.zeros((len(problem.queries), queries.shape[1]), dtype=np.float16)
            every[numbers] = queries[own]
            kept = in_memory(documents[place])
            fetch = backend(self.refresh.index, kept, problem.pool, device=self.device)
            miner = Miner(
                problem, in_memory(every), kept, fetch, self.refresh.selection, seed=self.seed, step=step
            )
            rows_of: dict[int, list[int]] = {}
            for row, query in zip(problem.rows.tolist(), problem.query_of.tolist(), strict=True):
                rows_of.setdefault(query, []).append(row)
            for start in range(0, len(numbers), BLOCK):
                if time.monotonic() > end:
                    break
                block = miner.block(numbers[start : start + BLOCK])
                for query, negatives, scores in zip(*block[:3], strict=True):
                    if negatives[0] >= 0:
                        shifted = np.where(negatives >= 0, negatives + self.texts.starts[place], -1)
                        result |= {row: (shifted, scores) for row in rows_of[int(query)]}
        return result


class Revised:
    """The `revise` of a data module: rows with the negatives that were mined for them.

    Args:
        folder: of the files.
        refresh: when there are some.
        texts: what numbers mean.
        accumulate: batches of an optimiser step.
        ahead: batches that may be made before their step.

    Raises:
        InputError: when batches are made so far ahead that a refresh could be missed.
    """

    def __init__(self, folder: Path, refresh: Refresh, texts: Texts, *, accumulate: int, ahead: int) -> None:
        if refresh.delay * accumulate < ahead:
            raise InputError(
                f"mining.delay={refresh.delay}: batches are made {ahead} steps ahead here. Set mining.delay "
                f"to {-(-ahead // accumulate)} or more, or data.num_workers lower"
            )
        self.folder, self.refresh, self.accumulate = folder, refresh, accumulate
        self.documents = [text for problem in texts.problems for text in problem.documents]
        self._read: tuple[int, Table] | None = None

    def __call__(self, step: int, rows: Sequence[int], examples: list[Example]) -> list[Example]:
        """As many examples; those that were mined for carry their new negatives and no teacher's scores."""
        newest = (step // self.accumulate - self.refresh.delay) // self.refresh.every * self.refresh.every
        if newest <= 0:
            return examples
        if self._read is None or self._read[0] != newest:
            table = read_table(self.folder, newest, self.refresh.selection.per_row, must_exist=True)
            self._read = (newest, table)
        found = self._read[1].rows_at(rows)
        return [
            example
            if numbers is None
            else example._replace(negatives=tuple(self.documents[n] for n in numbers), teacher=())
            for example, numbers in zip(examples, found, strict=True)
        ]
