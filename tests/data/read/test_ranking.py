"""One ranking, laid out as others do: trained on, mined from and evaluated alike."""

import csv
import json
import logging

import pytest
from datasets import Dataset, DatasetDict
from small_runs import write_rows

from embedtrain.data.read.sources import read_examples
from embedtrain.data.stores.arrow import ArrowRows
from embedtrain.evaluation.catalogue.local.sets import evaluated_splits, local_sets, used_files
from embedtrain.evaluation.catalogue.local.tables import read_ranking
from embedtrain.mining.reading import read_retrieval
from embedtrain.types import InputError

CORPUS = [{"id": f"d{n}", "title": "t" if n else "", "text": f"document {n}"} for n in range(6)]
QUERIES = [{"id": f"q{n}", "text": f"query {n}"} for n in range(3)]
QRELS = [("q0", "d0", 1), ("q0", "d3", 0), ("q1", "d1", 2), ("q2", "d2", 1)]


def judged(names, rows=QRELS):
    return [dict(zip(names, row, strict=True)) for row in rows]


def renamed(rows):
    return [{"_id": row["id"], **{key: row[key] for key in row if key != "id"}} for row in rows]


def ours(folder):
    write_rows(folder / "corpus.jsonl", CORPUS)
    write_rows(folder / "queries.jsonl", QUERIES)
    write_rows(folder / "qrels.jsonl", judged(("query_id", "corpus_id", "score")))


def beir(folder, header=True, split="test"):
    write_rows(folder / "corpus.jsonl", renamed(CORPUS))
    write_rows(folder / "queries.jsonl", renamed(QUERIES))
    (folder / "qrels").mkdir()
    with (folder / f"qrels/{split}.tsv").open("w", newline="") as file:
        lines = csv.writer(file, delimiter="\t")
        lines.writerows([("query-id", "corpus-id", "score"), *QRELS] if header else QRELS)


def trec(folder):
    for name, rows in (("corpus", CORPUS), ("queries", QUERIES)):
        lines = (f"{row['id']}\t{row.get('title', '')} {row['text']}".replace("\t ", "\t") for row in rows)
        (folder / f"{name}.tsv").write_text("\n".join(lines))
    (folder / "qrels.tsv").write_text("".join(f"{query} 0 {doc} {score}\n" for query, doc, score in QRELS))


def hub(folder):
    names = {"corpus": "corpus", "queries": "queries", "default": "test"}
    rows = (renamed(CORPUS), renamed(QUERIES), judged(("query-id", "corpus-id", "score")))
    for (place, name), part in zip(names.items(), rows, strict=True):
        (folder / place).mkdir()
        half = len(part) // 2
        for number, piece in enumerate((part[:half], part[half:])):
            Dataset.from_list(piece).to_parquet(folder / place / f"{name}-0000{number}-of-00002.parquet")


def saved(folder):
    parts = {"corpus": CORPUS, "queries": QUERIES, "test": judged(("query_id", "corpus_id", "score"))}
    DatasetDict({name: Dataset.from_list(rows) for name, rows in parts.items()}).save_to_disk(folder)


LAYOUTS = {
    "ours": ours,
    "BEIR": beir,
    "BEIR without a header": lambda folder: beir(folder, header=False),
    "TREC": trec,
    "hub": hub,
    "DatasetDict": saved,
}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "retrieval/shop"
    made.mkdir(parents=True)
    return made


def evaluated(folder, split=None):
    (item,) = local_sets(folder.parent.parent)
    splits = evaluated_splits(item, None if split is None else [split])
    return splits, read_ranking(used_files(item, splits))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_alike_by_training_mining_and_evaluation(folder, layout, tmp_path):
    LAYOUTS[layout](folder)
    rows = [example[:3] for example in read_examples(folder)]
    assert rows == [
        ("query 0", ("document 0",), ("t document 3",)),
        ("query 1", ("t document 1",), ()),
        ("query 2", ("t document 2",), ()),
    ]
    store = ArrowRows(folder, cache=tmp_path / "cache")
    assert [example[:3] for example in store.take(range(3))] == rows
    reading = read_retrieval(folder)
    assert [example[:2] for example in reading.examples] == [row[:2] for row in rows]
    assert len(reading.corpus) == 6
    splits, ranking = evaluated(folder)
    assert splits == ["test"]
    assert ranking["relevant_docs"]["q0"] == {"d0": 1, "d3": 0}
    assert ranking["corpus"]["id"][:] == [row["id"] for row in CORPUS]
    assert ranking["queries"]["text"][:] == [row["text"] for row in QUERIES]


def test_judgements_by_split(folder):
    beir(folder)
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td5\t1\n")
    assert [example[:2] for example in read_examples(folder)] == [("query 1", ("t document 5",))]
    assert len(read_examples(folder, split="test")) == 3
    assert len(read_retrieval(folder).examples) == 1
    splits, ranking = evaluated(folder, "train")
    assert (splits, ranking["queries"]["id"][:]) == (["train"], ["q1"])
    assert evaluated(folder)[0] == ["test"]
    with pytest.raises(InputError, match="has no judgements of 'dev', only test, train"):
        read_examples(folder, split="dev")
    with pytest.raises(InputError, match="has no judgements of dev"):
        evaluated(folder, "dev")


def test_judgements_of_what_is_missing_are_counted_and_warned_of(folder, caplog):
    ours(folder)
    rows = judged(("query_id", "corpus_id", "score"), [*QRELS, ("q0", "gone", 1), ("nobody", "d1", 1)])
    write_rows(folder / "qrels.jsonl", rows)
    for use in (lambda: evaluated(folder), lambda: read_retrieval(folder), lambda: read_examples(folder)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            use()
        assert "2 judgements are of queries or documents that are not there" in caplog.text
        assert "qrels.jsonl:5" in caplog.text
    assert evaluated(folder)[1]["relevant_docs"]["q0"] == {"d0": 1, "d3": 0, "gone": 1}
    assert (
        json.dumps([example.positives for example in read_retrieval(folder).examples]).count("document") == 3
    )
