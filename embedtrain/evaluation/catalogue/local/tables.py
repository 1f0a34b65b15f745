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
from typing import Any, TypeVar

from datasets import Dataset, DatasetDict

from embedtrain.data.read.bad_rows import BadRows, usable
from embedtrain.data.read.fields import (
    Field,
    Form,
    identifier,
    label,
    list_of,
    number,
    read_fields,
    text,
    zero_or_one,
)
from embedtrain.data.read.ranking import part_rows
from embedtrain.data.read.retrieval import DOCUMENT, QUERY, ById, Judgements
from embedtrain.data.read.sources import Prompts, read_examples
from embedtrain.evaluation.catalogue.local.columns import columns_of
from embedtrain.files.rows import stem
from embedtrain.types import InputError

logger = logging.getLogger(__name__)

Files = Mapping[str, Sequence[Path]]  # by split; a ranking: by corpus, queries, qrels, top_ranked
Value = TypeVar("Value")
HELD_OUT = 5  # a classification set of a train split alone: one row in 5 of each label is for the test
PAIR: Form = {"sentence1": Field(text), "sentence2": Field(text)}
LABELLED: Form = {"text": Field(text), "label": Field(label)}
RANKED: Form = {"query_id": Field(identifier), "corpus_ids": Field(list_of(identifier, "ids"))}
FORMS: Mapping[str, Form] = {
    "sts": {**PAIR, "score": Field(number)},
    "pairs": {**PAIR, "label": Field(zero_or_one)},
    "bitext": PAIR,
    "classification": LABELLED,
    "clustering": LABELLED,
    "summarization": {
        "text": Field(text),
        "human_summaries": Field(list_of(text, "texts")),
        "machine_summaries": Field(list_of(text, "texts")),
        "relevance": Field(list_of(number, "numbers")),
    },
}
COLUMNS = {"pairs": {"label": "labels"}, "clustering": {"text": "sentences", "label": "labels"}}  # of mteb


def read_tables(kind: str, files: Files, splits: Sequence[str]) -> DatasetDict:
    """The tables of `splits` (classification: and train) in the columns of mteb's task class for the kind.

    Raises:
        InputError: a malformed row or an empty file.
    """
    if kind == "classification":
        return DatasetDict(_classification(files, splits))
    names = COLUMNS.get(kind, {})
    return DatasetDict({split: _table(kind, files[split]).rename_columns(names) for split in splits})


def read_ranking(files: Files, kind: str = "retrieval") -> dict[str, Any]:
    """Corpus, queries, relevant_docs and, where there is such a file, top_ranked, as mteb's retrieval has.

    Rows as of training are a ranking too: of all their documents, or of each query's own in reranking.

    Raises:
        InputError: a malformed row, an unknown or repeated id, no relevant document at all.
    """
    if "corpus" not in files:
        return _ranking_of_rows(files, kind)
    corpus, queries = ById(DOCUMENT), ById(QUERY)
    judgements = Judgements(queries, corpus)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        _rows(files[name], rows.add, name)
    _rows(files["qrels"], judgements.add, "qrels", may_be_empty=True)
    judgements.warn_of_missing()
    relevant = judgements.scores
    if any(stem(path) != "qrels" for path in files["qrels"]):  # of one split
        queries.rows = {name: row for name, row in queries.rows.items() if name in relevant}
    if not any(score > 0 for docs in relevant.values() for score in docs.values()):
        raise InputError(f"{files['qrels'][0]}: no query has a relevant document (a score above 0)")
    empty = sum(not "".join(row.fields.values()).strip() for row in corpus.rows.values())
    if empty:
        logger.warning(
            "%s: %d documents have no text; they are ranked all the same", files["corpus"][0], empty
        )
    instructed = any(row.fields["instruction"] for row in queries.rows.values())
    columns = QUERY if instructed else {"text"}
    return {
        "corpus": Dataset.from_list([{"id": key, **row.fields} for key, row in corpus.rows.items()]),
        "queries": Dataset.from_list(
            [{"id": key, **{name: row.fields[name] for name in columns}} for key, row in queries.rows.items()]
        ),
        "relevant_docs": relevant,
        "top_ranked": _top_ranked(files["top_ranked"], judgements) if "top_ranked" in files else None,
    }


def _ranking_of_rows(files: Files, kind: str) -> dict[str, Any]:
    relevant: dict[str, dict[str, int]] = {}
    queries: dict[str, str] = {}
    corpus: dict[str, str] = {}
    prompted = 0
    for path in (path for paths in files.values() for path in paths):
        for example in read_examples(path):
            if not example.positives:
                raise InputError(f"{example.where}: is a text alone, and a ranking needs positives too")
            prompted += example.prompts != Prompts()
            query = queries.setdefault(example.query, f"q{len(queries)}")
            judged = {one: 0 for one in example.negatives} | {one: 1 for one in example.positives}
            for text_, score in judged.items():
                name = corpus.setdefault(text_, f"d{len(corpus)}")
                scores = relevant.setdefault(query, {})
                scores[name] = max(score, scores.get(name, 0))
    if prompted:
        logger.warning(
            "%s: %d rows have a prompt or instruction of their own, which a ranking leaves out: queries get "
            "the prompt of the model",
            ", ".join(str(path) for paths in files.values() for path in paths), prompted,
        )  # fmt: skip
    return {
        "corpus": Dataset.from_list([{"id": name, "title": "", "text": one} for one, name in corpus.items()]),
        "queries": Dataset.from_list([{"id": name, "text": one} for one, name in queries.items()]),
        "relevant_docs": relevant,
        "top_ranked": {query: list(own) for query, own in relevant.items()} if kind == "reranking" else None,
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


def _rows(
    files: Sequence[Path],
    read: Callable[[str, dict[str, Any]], Value],
    part: str = "",
    *,
    may_be_empty: bool = False,
) -> list[Value]:
    """What `read` makes of all rows. The first bad row is an error: a score is of the whole set."""
    found = [value for file in files for value in usable(part_rows(file, part), read, BadRows("error").add)]
    if not found and not may_be_empty:
        raise InputError(f"{', '.join(map(str, files))}: no rows; add some or remove the file")
    return found


def _table(kind: str, files: Sequence[Path]) -> Dataset:
    ours = columns_of(kind, tuple(FORMS[kind]))

    def read(where: str, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [checked(where, one) for one in ours(where, row)]

    def checked(where: str, row: dict[str, Any]) -> dict[str, Any]:
        found = read_fields(where, row, FORMS[kind])
        if kind == "summarization" and len(found["relevance"]) != len(found["machine_summaries"]):
            raise InputError(
                f"{where}: {len(found['relevance'])} numbers in 'relevance' for "
                f"{len(found['machine_summaries'])} machine_summaries"
            )
        return found

    return Dataset.from_list([row for rows in _rows(files, read) for row in rows])


def _classification(files: Files, splits: Sequence[str]) -> dict[str, Dataset]:
    parts = {split: _table("classification", files[split]) for split in files}
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


def _top_ranked(files: Sequence[Path], judgements: Judgements) -> dict[str, list[str]]:
    ranked: dict[str, list[str]] = {}

    def add(where: str, row: dict[str, Any]) -> None:
        query, docs = read_fields(where, row, RANKED).values()
        for doc in docs:
            judgements.check_known(where, query, doc)
        if query in ranked:
            raise InputError(f"{where}: query_id {query!r} was used before; give its candidates in one row")
        ranked[query] = docs

    _rows(files, add)
    if bare := sorted(set(judgements.scores) - set(ranked)):
        raise InputError(f"{files[0]}: no candidates for {len(bare)} judged queries, first {bare[0]!r}")
    return ranked


def _label_order(name: str) -> tuple[float, str]:
    """Numbers by value, then names: the order scikit-learn would give the labels as they came."""
    return (int(name), "") if name.lstrip("-").isdigit() else (math.inf, name)
