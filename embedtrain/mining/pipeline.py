"""Problems to vectors on disk to negatives, with the texts divided among ranks and invocations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from embedtrain.mining.backends import Index, backend
from embedtrain.mining.mine import Block, Mined, Miner, mine
from embedtrain.mining.problem import Problem
from embedtrain.mining.rescore import PairScores
from embedtrain.mining.selection import Selection
from embedtrain.mining.statistics import Statistics
from embedtrain.mining.store import PART, TextVectors
from embedtrain.mining.teacher import Embeds
from embedtrain.types import InputError
from embedtrain.vectors.store import VectorStore

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


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
