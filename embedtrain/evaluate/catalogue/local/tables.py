"""Local files as the tables that mteb's task classes read, one function per kind; every row is checked.

A ranking (retrieval, reranking) is a corpus, queries and graded relevance; every other kind is a table per
split. Texts keep the order of their files: few-shot sampling depends on it.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from embedtrain.evaluate.catalogue.local.fields import (
    Field,
    Row,
    checked_rows,
    identifier,
    identifiers,
    label,
    maybe_text,
    number,
    numbers,
    rows_by_id,
    text,
    texts,
    zero_or_one,
)
from embedtrain.files.rows import read_rows
from embedtrain.types import InputError

logger = logging.getLogger(__name__)

Files = Mapping[str, Sequence[Path]]  # by split; a ranking: by corpus, queries, qrels, top_ranked
HELD_OUT = (
    5  # one row in so many of each label becomes the test split of a classification set that has only train
)
PAIR: Mapping[str, Field] = {"sentence1": text, "sentence2": text}


def read_tables(kind: str, files: Files, splits: Sequence[str]) -> DatasetDict:
    """The tables of `splits` (classification: and train) in the columns of mteb's task class for the kind.

    Raises:
        InputError: a malformed row or an empty file.
    """
    return DatasetDict(_TABLES[kind](files, splits))


def read_ranking(files: Files) -> dict[str, Any]:
    """Corpus, queries, relevant_docs and, where there is such a file, top_ranked, as mteb's retrieval has.

    Raises:
        InputError: a malformed row, an unknown or repeated id, no relevant document at all.
    """
    (corpus_file,), (queries_file,), (qrels_file,) = files["corpus"], files["queries"], files["qrels"]
    corpus = rows_by_id(corpus_file, {"title": maybe_text, "text": maybe_text})
    queries = rows_by_id(queries_file, {"text": text, "instruction": maybe_text})
    empty = sum(not (row["title"] + row["text"]).strip() for row in corpus.values())
    if empty:
        logger.warning("%s: %d documents without text are kept", corpus_file, empty)
    if not any(row["instruction"] for row in queries.values()):
        queries = {key: {"text": row["text"]} for key, row in queries.items()}
    relevant = _relevant(qrels_file, queries, corpus)
    ranked = None
    if "top_ranked" in files:
        (ranked_file,) = files["top_ranked"]
        ranked = _top_ranked(ranked_file, queries, corpus)
        if bare := sorted(set(relevant) - set(ranked)):
            raise InputError(
                f"{ranked_file}: no candidates for {len(bare)} judged queries, first {bare[0]!r}"
            )
    return {
        "corpus": Dataset.from_list([{"id": key, **row} for key, row in corpus.items()]),
        "queries": Dataset.from_list([{"id": key, **row} for key, row in queries.items()]),
        "relevant_docs": relevant,
        "top_ranked": ranked,
    }


def hold_out(rows: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """(train, test) of one table: of each label one row in `HELD_OUT` goes to the test; the order is kept."""
    by_label: dict[Any, list[int]] = {}
    for position, name in enumerate(rows["label"][:]):
        by_label.setdefault(name, []).append(position)
    draw = random.Random(seed)
    held = {row for members in by_label.values() for row in draw.sample(members, len(members) // HELD_OUT)}
    if not held:
        raise InputError(
            f"no label has {HELD_OUT} rows, too few to hold out a test split; add a test or val file"
        )
    return rows.select([row for row in range(len(rows)) if row not in held]), rows.select(sorted(held))


def _table(files: Sequence[Path], fields: Mapping[str, Field]) -> Dataset:
    return Dataset.from_list(checked_rows(files, fields))


def _sts(files: Files, splits: Sequence[str]) -> dict[str, Dataset]:
    return {split: _table(files[split], {**PAIR, "score": number}) for split in splits}


def _pairs(files: Files, splits: Sequence[str]) -> dict[str, Dataset]:
    fields = {**PAIR, "label": zero_or_one}
    return {split: _table(files[split], fields).rename_column("label", "labels") for split in splits}


def _bitext(files: Files, splits: Sequence[str]) -> dict[str, Dataset]:
    return {split: _table(files[split], PAIR) for split in splits}


def _clustering(files: Files, splits: Sequence[str]) -> dict[str, Dataset]:
    columns = {"text": "sentences", "label": "labels"}
    return {
        split: _table(files[split], {"text": text, "label": label}).rename_columns(columns)
        for split in splits
    }


def _summarization(files: Files, splits: Sequence[str]) -> dict[str, Dataset]:
    fields = {"text": text, "human_summaries": texts, "machine_summaries": texts, "relevance": _relevance}
    return {split: _table(files[split], fields) for split in splits}


def _classification(files: Files, splits: Sequence[str]) -> dict[str, Dataset]:
    fields = {"text": text, "label": label}
    parts = {split: _table(files[split], fields) for split in files}
    if missing := set(splits) - set(parts):
        parts["train"], parts[missing.pop()] = hold_out(parts["train"])
        logger.info(
            "%s is only a train split: one row in %d of each label is held out of it as the test split",
            files["train"][0],
            HELD_OUT,
        )
    names = sorted({name for part in parts.values() for name in part["label"][:]}, key=_label_order)
    code = {name: position for position, name in enumerate(names)}
    return {
        split: Dataset.from_dict(
            {"text": part["text"][:], "label": [code[name] for name in part["label"][:]]}
        )
        for split, part in parts.items()
    }


_TABLES: Mapping[str, Callable[[Files, Sequence[str]], dict[str, Dataset]]] = {
    "sts": _sts,
    "pairs": _pairs,
    "classification": _classification,
    "clustering": _clustering,
    "bitext": _bitext,
    "summarization": _summarization,
}


def _relevance(row: Row, field: str, where: str) -> list[float]:
    scores, summaries = numbers(row, field, where), texts(row, "machine_summaries", where)
    if len(scores) != len(summaries):
        raise InputError(
            f"{where}: {len(scores)} numbers in {field!r} for {len(summaries)} machine_summaries"
        )
    return scores


def _relevant(path: Path, queries: Mapping[str, Any], corpus: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    relevant: dict[str, dict[str, int]] = {}
    for where, row in read_rows(path):
        query, doc = identifier(row, "query_id", where), identifier(row, "corpus_id", where)
        score = number(row, "score", where)
        _known(query, doc, queries, corpus, where)
        if score != int(score):
            raise InputError(f"{where}: score must be a whole number (0 for not relevant), got {score}")
        relevant.setdefault(query, {})[doc] = int(score)
    if not any(score > 0 for docs in relevant.values() for score in docs.values()):
        raise InputError(f"{path}: no query has a relevant document (a score above 0)")
    return relevant


def _top_ranked(path: Path, queries: Mapping[str, Any], corpus: Mapping[str, Any]) -> dict[str, list[str]]:
    ranked: dict[str, list[str]] = {}
    for where, row in read_rows(path):
        query = identifier(row, "query_id", where)
        docs = identifiers(row, "corpus_ids", where)
        for doc in docs:
            _known(query, doc, queries, corpus, where)
        if query in ranked:
            raise InputError(f"{where}: query_id {query!r} was used before; give its candidates in one row")
        ranked[query] = docs
    if not ranked:
        raise InputError(f"{path}: no rows; add some or remove the file")
    return ranked


def _known(query: str, doc: str, queries: Mapping[str, Any], corpus: Mapping[str, Any], where: str) -> None:
    if query not in queries:
        raise InputError(f"{where}: query_id {query!r} is not among the queries")
    if doc not in corpus:
        raise InputError(f"{where}: corpus_id {doc!r} is not in the corpus")


def _label_order(name: str) -> tuple[float, str]:
    """Numbers by value, then names: the order scikit-learn would give the labels as they came."""
    return (int(name), "") if name.lstrip("-").isdigit() else (math.inf, name)
