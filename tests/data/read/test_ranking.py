"""One ranking, laid out as others do: trained on, mined from and evaluated alike."""

import csv
import json
import logging

import pytest
from datasets import Dataset, DatasetDict
from small_runs import write_rows

from embedtrain.data.read.ranking import ranking_files
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


def flag_embedding(folder):
    write_rows(folder / "corpus.jsonl", CORPUS)
    write_rows(folder / "test_queries.jsonl", QUERIES)
    write_rows(folder / "test_qrels.jsonl", judged(("qid", "docid", "relevance")))


def ms_marco(folder):
    trec(folder)
    for old, new in (("corpus", "collection"), ("queries", "queries.test"), ("qrels", "qrels.test")):
        (folder / f"{old}.tsv").rename(folder / f"{new}.tsv")


def llama_index(folder, name="dataset"):
    texts = {row["id"]: f"{row['title']} {row['text']}".strip() for row in CORPUS}
    relevant = {}
    for query, doc, score in QRELS:
        relevant.setdefault(query, {})[doc] = score
    whole = {
        "queries": {row["id"]: row["text"] for row in QUERIES},
        "corpus": texts | {"d1": {"title": "t", "text": "document 1"}},
        "relevant_docs": relevant | {"q2": ["d2"]},
        "mode": "text",
    }
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=4))


def triplets(folder):
    ours(folder)
    (folder / "qrels.jsonl").unlink()
    rows = [
        {"query-id": "q0", "positive-id": "d0", "negative-id-1": "d3"},
        {"query-id": "q1", "positive-id": "d1"},
        {"query-id": "q2", "positive-id": "d2"},
    ]
    write_rows(folder / "triplets.jsonl", rows)


def triplets_in_lists(folder):
    triplets(folder)
    rows = [{"qid": query, "pos": [doc], "neg": {}} for query, doc, score in QRELS if score]
    rows[0]["neg"] = {"bm25": ["d3"], "other": ["d3"]}
    write_rows(folder / "triplets.jsonl", rows)


LAYOUTS = {
    "FlagEmbedding": flag_embedding,
    "MS MARCO": ms_marco,
    "LlamaIndex": llama_index,
    "triplets of ids": triplets,
    "lists of ids": triplets_in_lists,
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


def test_a_row_of_ids_is_a_row_of_training(folder):
    ours(folder)
    (folder / "qrels.jsonl").unlink()
    (folder / "triplets.tsv").write_text("q0\td0\td3\nq0\td1\td2\nq1\tgone\td2\nq1\td1\tgone\n")
    rows = [example[:3] for example in read_examples(folder)]
    assert rows == [
        ("query 0", ("document 0",), ("t document 3",)),
        ("query 0", ("t document 1",), ("t document 2",)),
        ("query 1", ("t document 1",), ()),
    ]
    named = [{"query": "q0", "positive": "d0", "negative": "d3", "score": 2.5}]
    (folder / "triplets.tsv").unlink()
    write_rows(folder / "train.jsonl", named)
    assert read_examples(folder)[0].teacher == (2.5, 0.0)


def test_a_file_of_judgements_is_a_source(folder):
    beir(folder)
    assert read_examples(folder / "qrels/test.tsv", task="shop") == read_examples(folder)
    llama = folder.parent / "llama"
    llama.mkdir()
    llama_index(llama)
    assert [row[:3] for row in read_examples(llama / "dataset.json")] == [
        row[:3] for row in read_examples(folder)
    ]


def test_rankings_that_are_each_one_file(folder):
    llama_index(folder, "train_dataset")
    whole = json.loads((folder / "train_dataset.json").read_text())
    whole["corpus"] |= {"d9": "one more"}
    (folder / "val_dataset.json").write_text(json.dumps(whole))
    assert read_examples(folder)[0].where.startswith(f"{folder}/train_dataset.json")
    splits, ranking = evaluated(folder)
    assert (splits, len(ranking["corpus"])) == (["val"], 7)


def test_rows_as_of_training_are_a_ranking_of_their_documents(folder):
    rows = [{"query": "q one", "pos": ["a b"], "neg": ["c d"]}, {"query": "q two", "pos": ["c d"], "neg": []}]
    write_rows(folder / "test.jsonl", rows)
    splits, ranking = evaluated(folder)
    assert splits == ["test"]
    assert ranking["corpus"]["text"][:] == ["c d", "a b"]
    assert ranking["relevant_docs"] == {"q0": {"d0": 0, "d1": 1}, "q1": {"d0": 1}}
    assert ranking["top_ranked"] is None, "all documents are ranked, not each query's own"


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


def test_judgements_go_before_triplets_which_say_less(folder):
    triplets(folder)
    write_rows(folder / "qrels.jsonl", judged(("query_id", "corpus_id", "score")))
    assert [path.name for path in ranking_files(folder)["qrels"]] == ["qrels.jsonl"]
