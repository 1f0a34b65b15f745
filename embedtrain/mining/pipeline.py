"""Problems to vectors on disk to negatives, with the texts divided among ranks and invocations.

A vector's last digits depend on the texts that it was encoded beside. So its key names its whole part, and a
part with anything missing is encoded whole: rows do not depend on kills, ranks or what was mined before.

Letters: n texts, G width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.ahead import ahead
from embedtrain.mining.backends import Index, backend
from embedtrain.mining.mine import Block, Mined, Miner, mine
from embedtrain.mining.problem import Problem
from embedtrain.mining.rescore import PairScores
from embedtrain.mining.selection import Selection
from embedtrain.mining.statistics import Statistics
from embedtrain.mining.teacher import Embeds
from embedtrain.types import InputError, Role
from embedtrain.vectors.store import VectorStore, key_of
from embedtrain.vectors.topk import Rows

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much
PART = 2_048  # texts encoded, sorted by length, and lost by a kill together: some ten seconds of two cores


class TextVectors:
    """The vectors of some texts by one teacher, made part by part.

    Args:
        store: holds vectors of this teacher.
        teacher: makes them.
        texts: n texts, each once for the sake of time.
        role: of all of them.
        prompts: one a text or None; as `Embeds.embed`.
        part: texts in a part.
    """

    def __init__(
        self,
        store: VectorStore,
        teacher: Embeds,
        texts: Sequence[str],
        role: Role,
        *,
        prompts: Sequence[str | None] | None = None,
        part: int = PART,
    ) -> None:
        self.store, self.teacher, self.texts, self.role = store, teacher, texts, role
        self.prompts = [None] * len(texts) if prompts is None else prompts
        self.parts = [slice(start, start + part) for start in range(0, len(texts), part)]

    def fill(self, *, shard: int = 0, shards: int = 1, progress: Callable[[int], None] | None = None) -> int:
        """Make those parts of this shard (0-based, of `shards`) that are not there; the texts encoded.

        `progress` receives the texts that were encoded or in the store since the last call.

        Raises:
            InputError: when the disk is full or the place cannot be written.
        """
        mine = {self._keys(part)[0]: part for part in self.parts[shard::shards]}  # equal parts once
        there = {key: bool((self.store.locate(self._keys(part)) >= 0).all()) for key, part in mine.items()}
        due = [part for key, part in mine.items() if not there[key]]
        encoded = sum(len(self.texts[part]) for part in due)
        tell = (lambda _: None) if progress is None else progress
        if stored := sum(len(self.texts[part]) for part in self.parts[shard::shards]) - encoded:
            tell(stored)
        for part, read in zip(due, ahead(due, self._read), strict=True):
            self.store.add(self._keys(part), self.teacher.vectors(read))
            tell(len(self.texts[part]))
        return encoded

    def _read(self, part: slice) -> object:
        prompts = self.prompts[part] if any(self.prompts[part]) else None
        return self.teacher.read(self.texts[part], self.role, prompts)

    def open(self) -> Rows:
        """All vectors, checked.

        Raises:
            InputError: when parts are missing.
        """
        located = [self.store.locate(self._keys(part)) for part in self.parts]
        missing = sum(bool((places < 0).any()) for places in located)
        if missing:
            raise InputError(
                f"{self.store.folder}: {missing} of {len(self.parts)} parts of the {self.role} vectors are "
                "missing. Run the shards that were left out, or run once without shard=."
            )
        places = np.concatenate([np.empty(0, dtype=np.int64), *located])

        def take(numbers: NDArray[np.int64]) -> NDArray[np.generic]:
            return self.store.read(places[numbers])

        return Rows(self.store.width, take)

    def _keys(self, part: slice) -> list[bytes]:
        whole = key_of(self.role, *self.prompts[part], *self.texts[part])
        return [key_of(whole, row) for row in range(len(self.texts[part]))]


class Stores(NamedTuple):
    """The vectors of a problem on disk."""

    queries: TextVectors
    documents: TextVectors


def stores_of(
    problems: Sequence[Problem], teacher: Embeds, folder: str | Path, *, part: int = PART
) -> list[Stores]:
    """Where the vectors of each problem are, or will be."""
    store = VectorStore(folder, identity=teacher.identity, width=teacher.width, dtype="float16")
    made = []
    for problem in problems:
        texts = [query.text for query in problem.queries]
        prompts = [query.prompt for query in problem.queries]
        queries = TextVectors(store, teacher, texts, "query", prompts=prompts, part=part)
        made.append(Stores(queries, TextVectors(store, teacher, problem.documents, "document", part=part)))
    return made


def fill(stores: Sequence[Stores], progress: Progress, *, shard: int = 0, shards: int = 1) -> int:
    """Encode this shard's part (0-based, of `shards`) of all texts; how many were not there already.

    Consecutive parts of all stores go to the shards in turn, so that each has some of every kind of text.
    """
    flat = [store for pair in stores for store in pair]
    total = sum(len(store.texts) for store in flat)
    done = encoded = turn = 0

    def tick(texts: int) -> None:
        nonlocal done
        done += texts
        progress("encoding", min(done * shards, total), total)

    for store in flat:
        encoded += store.fill(shard=(shard - turn) % shards, shards=shards, progress=tick)
        turn += len(store.parts)
    return encoded


def mine_all(
    problems: Sequence[Problem],
    stores: Sequence[Stores],
    selection: Selection,
    progress: Progress,
    *,
    index: Index = "exact",
    device: str = "cpu",
    pairs: PairScores | None = None,
    seed: int = 0,
) -> tuple[list[Mined], Statistics]:
    """The negatives of all problems, and what was counted on the way; all vectors must be on disk."""
    statistics = Statistics([rule.name for rule in selection.rules], selection.per_row)
    total = sum(len(problem.queries) for problem in problems)
    done = 0

    def count(problem: Problem, block: Block) -> None:
        nonlocal done
        done += len(block.queries)
        progress("mining", done, total)

    mined = []
    for problem, store in zip(problems, stores, strict=True):
        documents = store.documents.open()
        fetch = backend(index, documents, problem.pool, device=device)
        miner = Miner(problem, store.queries.open(), documents, fetch, selection, pairs=pairs, seed=seed)
        mined.append(mine(miner, [statistics.note, count]))
    return mined, statistics


def check_size(problems: Sequence[Problem], selection: Selection) -> None:
    """Raise InputError where a corpus has too few documents for the negatives that are asked for."""
    for problem in problems:
        if problem.pool <= selection.per_row:
            raise InputError(
                f"there are {problem.pool} documents to choose from: too few for {selection.per_row} "
                "negatives of each query. Give a corpus, more rows, or a smaller selection.per_row."
            )
