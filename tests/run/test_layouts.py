"""Real data as other tools lay them out train the same weights and score the same as in our own layout."""

import hashlib
import os
from pathlib import Path

import pytest
from datasets import Dataset
from small_runs import command, read_rows, write_rows, write_table

from embedtrain.files.scores import read_scores

DATA = os.environ.get("EMBEDTRAIN_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="EMBEDTRAIN_DATA does not name the folder of real data")
QUERIES, NEGATIVES = 24, 3  # of each data set, of a query


def parquet(path, rows):
    """Two parts, as the hub names them; `path` ends in the name of the split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        Dataset.from_list(part).to_parquet(path.parent / f"{path.name}-0000{number}-of-00002.parquet")


def cranfield():
    """Documents, queries and (query, document, score)."""
    folder = Path(DATA) / "retrieval/cranfield"
    parts = [read_rows(folder / f"{name}.jsonl") for name in ("queries", "qrels", "corpus")]
    queries = parts[0][:QUERIES]
    asked = {row["id"] for row in queries}
    judged = [
        (row["query_id"], row["corpus_id"], row["score"]) for row in parts[1] if row["query_id"] in asked
    ]
    relevant = {doc for _, doc, _ in judged}
    corpus = [row for place, row in enumerate(parts[2]) if row["id"] in relevant or place % 20 == 0]
    return corpus, queries, judged


def trecqa(split):
    """Questions with sentences that answer them, and others."""
    rows = read_rows(Path(DATA) / f"retrieval/trecqa/{split}.jsonl")[:QUERIES]
    return [row | {"negatives": row.get("negatives", [])[:NEGATIVES]} for row in rows]


def named(names, rows):
    return [dict(zip(names, row, strict=True)) for row in rows]


def renamed(rows, **names):
    return [{names.get(key, key): value for key, value in row.items()} for row in rows]


def judged_of(rows):
    """Rows of texts as documents, queries and judgements."""
    corpus, queries, judged = {}, [], []
    for row in rows:
        queries.append({"id": f"q{len(queries)}", "text": row["query"]})
        texts = dict.fromkeys(row["negatives"], 0) | dict.fromkeys(row["positives"], 1)
        for text, score in texts.items():
            judged.append((queries[-1]["id"], corpus.setdefault(text, f"d{len(corpus)}"), score))
    return [{"id": name, "title": "", "text": text} for text, name in corpus.items()], queries, judged


def rows_of(corpus, queries, judged):
    """Documents, queries and judgements as (query, documents that answer)."""
    docs = {row["id"]: row for row in corpus}
    texts = {row["id"]: row["text"] for row in queries}
    found = {}
    for query, doc, score in judged:
        if score > 0:
            found.setdefault(query, []).append(docs[doc])
    return [(texts[query], relevant) for query, relevant in found.items()]


def beir(folder, parts, split):
    corpus, queries, judged = parts
    write_rows(folder / "corpus.jsonl", renamed(corpus, id="_id"))
    write_rows(folder / "queries.jsonl", renamed(queries, id="_id"))
    write_table(folder / f"qrels/{split}.tsv", named(("query-id", "corpus-id", "score"), judged), "\t")


def tables(folder, parts, split):
    corpus, queries, judged = parts
    write_table(folder / "corpus.csv", corpus)
    write_table(folder / "queries.csv", queries)
    write_table(folder / "qrels.csv", named(("query_id", "corpus_id", "score"), judged))


def hub(folder, parts, split):
    corpus, queries, judged = parts
    parquet(folder / "corpus/corpus", renamed(corpus, id="_id"))
    parquet(folder / "queries/queries", renamed(queries, id="_id"))
    parquet(folder / f"default/{split}", named(("query-id", "corpus-id", "score"), judged))


def ours(folder, parts, split):
    corpus, queries, judged = parts
    write_rows(folder / "corpus.jsonl", corpus)
    write_rows(folder / "queries.jsonl", queries)
    write_rows(folder / "qrels.jsonl", named(("query_id", "corpus_id", "score"), judged))


def flag_parts(folder, parts, split):
    corpus, queries, judged = parts
    write_rows(folder / "corpus.jsonl", corpus)
    write_rows(folder / f"{split}_queries.jsonl", queries)
    write_rows(folder / f"{split}_qrels.jsonl", named(("qid", "docid", "relevance"), judged))


def tevatron_parts(folder, parts, split):
    corpus, queries, judged = parts
    write_rows(folder / "corpus.jsonl", renamed(corpus, id="docid"))
    write_rows(folder / "queries.jsonl", renamed(queries, id="query_id", text="query"))
    (folder / "qrels.tsv").write_text("".join(f"{query} 0 {doc} {score}\n" for query, doc, score in judged))


def one_ranking(root, form):
    """Cranfield: trained on and evaluated from one folder; where the form is of rows, these train."""
    parts, folder = cranfield(), root / "retrieval/set"
    rows = rows_of(*parts)
    whole = [(query, [f"{doc['title']} {doc['text']}".strip() for doc in docs]) for query, docs in rows]
    if form == "FlagEmbedding":
        flag_parts(folder, parts, "test")
        return write_rows(root / "train.jsonl", [{"query": q, "pos": docs, "neg": []} for q, docs in whole])
    if form == "Tevatron":
        tevatron_parts(folder, parts, "test")
        return write_rows(
            root / "train.jsonl",
            [
                {
                    "query_id": "1",
                    "query": q,
                    "positive_passages": renamed(docs, id="docid"),
                    "negative_passages": [],
                }
                for q, docs in rows
            ],
        )
    {"ours": ours, "BEIR": beir, "CSV": tables, "hub": hub}[form](folder, parts, "test")
    return folder


def one_set_of_rows(root, form):
    """TREC QA: rows of train and rows of test, where the form has such."""
    parts = {"train": trecqa("train"), "test": trecqa("dev")}
    places = {"train": root / "train", "test": root / "retrieval/set"}
    for split, rows in parts.items():
        flag = [{"query": row["query"], "pos": row["positives"], "neg": row["negatives"]} for row in rows]
        if form == "ours":
            write_rows(places[split] / f"{split}.jsonl", rows)
        elif form == "FlagEmbedding":
            write_rows(places[split] / f"{split}.jsonl", [row | {"type": "normal"} for row in flag])
        elif form == "Tevatron":
            write_rows(places[split] / f"{split}.jsonl", map(tevatron, flag))
        elif form == "CSV":
            write_table(places[split] / f"{split}.csv", flag)
        elif form == "hub":
            parquet(places[split] / f"data/{split}", flag)
        else:
            beir(places[split], judged_of(rows), split)
    return places["train"]


def tevatron(row):
    sides = {"positive_passages": row["pos"], "negative_passages": row["neg"]}
    passages = {
        side: [{"docid": str(number), "title": "", "text": text} for number, text in enumerate(texts)]
        for side, texts in sides.items()
    }
    return {"query_id": "1", "query": row["query"], **passages}


FORMS = ("BEIR", "FlagEmbedding", "Tevatron", "CSV", "hub")


@pytest.mark.parametrize(
    ("laid_out", "forms"),
    [
        (one_ranking, ("BEIR", "hub")),
        (one_set_of_rows, ("FlagEmbedding", "Tevatron", "CSV")),
        *(
            pytest.param(laid_out, FORMS, marks=pytest.mark.slow)
            for laid_out in (one_ranking, one_set_of_rows)
        ),
    ],
)
def test_every_layout_trains_the_same_weights_and_scores_the_same(small_run, tmp_path, laid_out, forms):
    found = {}
    for form in ("ours", *forms):
        root = tmp_path / form
        source = laid_out(root, form)
        words = [word for word in small_run if not word.startswith(("data.train", "plan.pairs"))]
        words += [f"data.train={{source: '{source}', task: same}}", "plan.pairs=[[2,16],[4,32]]", "name=r"]
        words += [f"output_root={root}", "trainer.max_steps=2", "evaluation.before=false"]
        command("train", *words, "evaluation.tasks=[local]", f"evaluation.data_root={root}")
        weights = (root / "r/model/model.safetensors").read_bytes()
        scores = [score[:] for score in read_scores(root / "r/scores.jsonl")]
        found[form] = hashlib.sha256(weights).hexdigest(), scores
    assert len(found["ours"][1]) >= 2
    assert {form: value == found["ours"] for form, value in found.items()} == dict.fromkeys(found, True)
