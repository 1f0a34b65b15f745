"""Real data as other tools lay them out: the rows and rankings of our layout, so the same runs and scores."""

import csv
import os
from pathlib import Path

import pytest
from datasets import Dataset
from small_runs import read_rows, write_rows

from embedtrain.data.read.ranking import of_split, ranking_files
from embedtrain.data.read.sources import read_examples
from embedtrain.evaluation.catalogue.local.tables import read_ranking, read_tables

DATA = os.environ.get("EMBEDTRAIN_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="EMBEDTRAIN_DATA does not name the folder of real data")


def examples(source, **options):
    return [example._replace(where="") for example in read_examples(source, task="same", **options)]


def passages(texts):
    return [{"docid": str(number), "title": "", "text": text} for number, text in enumerate(texts)]


def write_table(path, rows, separator=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        lines.writeheader()
        lines.writerows(rows)
    return path


def test_questions_with_answers_are_the_same_rows_in_every_form(tmp_path):
    source = Path(DATA) / "retrieval/trecqa/train.jsonl"
    rows, expected = read_rows(source), examples(source)
    flag = [{"query": row["query"], "pos": row["positives"], "neg": row.get("negatives", [])} for row in rows]
    tevatron = [
        {
            "query": row["query"],
            "positive_passages": passages(row["pos"]),
            "negative_passages": passages(row["neg"]),
        }
        for row in flag
    ]
    hub = tmp_path / "hub"
    hub.mkdir()
    Dataset.from_list(flag).to_parquet(hub / "train-00000-of-00001.parquet")
    Dataset.from_list(flag[:3]).to_parquet(hub / "test-00000-of-00001.parquet")
    for form in (write_rows(tmp_path / "f.jsonl", flag), write_rows(tmp_path / "t.jsonl", tevatron), hub):
        assert examples(form) == expected


def test_scored_pairs_are_the_same_rows_and_tables_in_csv_and_parquet(tmp_path):
    source = Path(DATA) / "sts/stsbenchmark/dev.jsonl"
    rows, expected = read_rows(source), examples(source)
    pairs = [{name: row[name] for name in ("sentence1", "sentence2", "score")} for row in rows]
    shard = tmp_path / "dev-00000-of-00001.parquet"
    Dataset.from_list(pairs).to_parquet(shard)
    table = read_tables("sts", {"dev": (source,)}, ["dev"])["dev"].to_list()
    for form in (write_table(tmp_path / "dev.csv", pairs), shard):
        assert examples(form) == expected
        assert read_tables("sts", {"dev": (form,)}, ["dev"])["dev"].to_list() == table


def test_a_ranking_is_the_same_as_beir_unpacks_it(tmp_path):
    source = Path(DATA) / "retrieval/cranfield"
    (tmp_path / "qrels").mkdir()
    for name in ("corpus", "queries"):
        rows = [{"_id": row.pop("id"), **row} for row in read_rows(source / f"{name}.jsonl")]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    judged = [
        {"query-id": row["query_id"], "corpus-id": row["corpus_id"], "score": row["score"]}
        for row in read_rows(source / "qrels.jsonl")
    ]
    write_table(tmp_path / "qrels/test.tsv", judged, "\t")
    assert examples(tmp_path) == examples(source)
    ours, theirs = (read_ranking(of_split(ranking_files(at), None, (), at)) for at in (source, tmp_path))
    assert theirs["relevant_docs"] == ours["relevant_docs"]
    for part in ("corpus", "queries"):
        assert theirs[part].to_list() == ours[part].to_list()
