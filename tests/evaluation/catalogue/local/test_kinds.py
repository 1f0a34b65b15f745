"""Clustering, bitext, summarization and reranking from one's own files."""

import re

import pytest
from tasks import swept

from embedtrain.evaluation.catalogue.local.tables import read_ranking, read_tables
from embedtrain.evaluation.catalogue.tasks import find_tasks, load
from embedtrain.files.scores import main_scores
from embedtrain.types import Cell, InputError


@pytest.fixture
def root(tmp_path, write):
    root = tmp_path / "own"
    write(
        root / "clustering/pets/test.jsonl",
        [{"text": f"{word} {n}", "label": word} for n in range(8) for word in ("cat", "dog")],
    )
    write(
        root / "bitext/same/test.jsonl",
        [{"sentence1": f"house {n}", "sentence2": f"house {n}"} for n in range(6)],
    )
    write(
        root / "summarization/news/test.jsonl",
        [
            {
                "text": "a long story",
                "human_summaries": ["cat runs", "cat sleeps"],
                "machine_summaries": ["cat runs", "stone river", "cat stone"],
                "relevance": [5, 1, 3],
            }
            for _ in range(2)
        ],
    )
    ranking = root / "reranking/best"
    write(ranking / "corpus.jsonl", [{"id": f"d{n}", "text": f"word{n}"} for n in range(6)])
    write(ranking / "queries.jsonl", [{"id": f"q{n}", "text": f"word{n}"} for n in range(3)])
    write(
        ranking / "qrels.jsonl", [{"query_id": f"q{n}", "corpus_id": f"d{n}", "score": 1} for n in range(3)]
    )
    write(
        ranking / "top_ranked.jsonl",
        [{"query_id": f"q{n}", "corpus_ids": [f"d{n}", f"d{n + 1}", f"d{n + 2}"]} for n in range(3)],
    )
    return root


def test_every_kind_is_scored_by_its_main_metric(root, make_encoder, tmp_path):
    tasks = find_tasks(["local"], root)
    scores = swept(make_encoder(), tasks, [Cell(1, 16)], tmp_path)
    main = {score.task: (score.metric, score.value) for score in main_scores(scores)}
    assert main["same"] == ("f1", 1.0)
    assert main["best"] == ("map_at_1000", 1.0)
    assert main["pets"][0] == "v_measure"
    assert main["pets"][1] > 0.5
    assert main["news"][0] == "cosine_spearman"
    assert main["news"][1] == pytest.approx(1.0)


def test_clustering_embeds_every_row(root, make_encoder, tmp_path):
    encoder = make_encoder()
    swept(encoder, find_tasks(["pets"], root), [Cell(1, 16)], tmp_path)
    assert len(encoder.texts) == 16


def test_instructions_of_queries_are_kept(root, write):
    write(
        root / "reranking/best/queries.jsonl",
        [{"id": f"q{n}", "text": f"word{n}", "instruction": "find the same word"} for n in range(3)],
    )
    (task,) = find_tasks(["best"], root)
    load(task)
    assert task.dataset["default"]["test"]["queries"]["instruction"][:] == ["find the same word"] * 3


SUMMARY = '{"text": "a", "human_summaries": ["b"], "machine_summaries": ["c"], "relevance": [1]}'


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("clustering/pets/test.jsonl", '{"text": "a"}', ":17: field 'label' is missing"),
        ("bitext/same/test.jsonl", '{"sentence1": "a"}', ":7: field 'sentence2' is missing"),
        ("summarization/news/test.jsonl", SUMMARY.replace("[1]", "[1, 2]"),
         ":3: 2 numbers in 'relevance' for 1 machine_summaries"),
        ("summarization/news/test.jsonl", SUMMARY.replace('["b"]', '"b"'),
         ":3: 'human_summaries' must be a list of texts, got str: 'b'"),
        ("reranking/best/top_ranked.jsonl", '{"query_id": "q0", "corpus_ids": ["d0"]}',
         ":4: query_id 'q0' was used before"),
        ("reranking/best/top_ranked.jsonl", '{"query_id": "q0", "corpus_ids": ["d77"]}',
         ":4: corpus_id 'd77' is not in the corpus"),
        ("reranking/best/top_ranked.jsonl", '{"query_id": "q0", "corpus_ids": "d0"}',
         ":4: 'corpus_ids' must be a list of ids, got str: 'd0'"),
    ],
)  # fmt: skip
def test_a_bad_row_of_these_kinds_is_named(root, file, line, message):
    with (root / file).open("a") as opened:
        opened.write(line + "\n")
    (task,) = find_tasks([file.split("/")[1]], root)
    with pytest.raises(InputError, match=re.escape(file.split("/")[2] + message)):
        load(task)


def test_judged_queries_need_candidates(root, write):
    write(root / "reranking/best/top_ranked.jsonl", [{"query_id": "q0", "corpus_ids": ["d0"]}])
    (task,) = find_tasks(["best"], root)
    with pytest.raises(InputError, match=r"no candidates for 2 judged queries, first 'q1'"):
        load(task)
    (root / "reranking/best/top_ranked.jsonl").unlink()
    with pytest.raises(InputError, match="reranking/best lacks top_ranked"):
        find_tasks(["best"], root)


PAIRS = [("a cat", "a dog", 0), ("a bird", "a bird", 1), ("the sun", "the rain", 0)]
LISTS = dict(zip(("sent1", "sent2", "labels"), map(list, zip(*PAIRS, strict=True)), strict=True))


@pytest.mark.parametrize(
    ("kind", "name", "rows"),
    [
        ("sts", "score", [{"sentence_A": a, "sentence_B": b, "relatedness_score": c} for a, b, c in PAIRS]),
        ("sts", "score", [{"text1": a, "text2": b, "label": str(c)} for a, b, c in PAIRS]),
        ("pairs", "labels", [{"question1": a, "question2": b, "is_duplicate": c} for a, b, c in PAIRS]),
        ("pairs", "labels", [LISTS]),
    ],
)
def test_pairs_are_read_under_the_names_that_others_give(tmp_path, write, kind, name, rows):
    path = tmp_path / "test.jsonl"
    write(path, rows)
    table = read_tables(kind, {"test": (path,)}, ["test"])["test"].to_list()
    assert [(row["sentence1"], row["sentence2"], row[name]) for row in table] == PAIRS


@pytest.mark.parametrize(
    "rows",
    [
        [{"sentences": ["a cat", "a dog"], "labels": [1, 0]}],
        [{"text": "a cat", "intent": 1}, {"text": "a dog", "intent": 0}],
        [{"sentence": "a cat", "label": 1}, {"sentence": "a dog", "label": 0}],
    ],
)
def test_labelled_texts_are_read_under_the_names_that_others_give(tmp_path, write, rows):
    path = tmp_path / "test.jsonl"
    write(path, rows)
    table = read_tables("clustering", {"test": (path,)}, ["test"])["test"].to_list()
    assert [(row["sentences"], row["labels"]) for row in table] == [("a cat", "1"), ("a dog", "0")]


def test_rows_of_a_query_with_its_documents_are_ranked(tmp_path, write, make_encoder):
    rows = [
        {"query": f"word{n}", "positive": [f"word{n}"], "negative": [f"other{n}", f"more{n}"]}
        for n in range(3)
    ]
    for kind in ("reranking", "retrieval"):
        write(tmp_path / kind / f"{kind}-rows" / "test.jsonl", rows)
    scores = swept(make_encoder(), find_tasks(["local"], tmp_path), [Cell(1, 16)], tmp_path / "out")
    assert [score.value for score in main_scores(scores)] == [1.0, 1.0]


def test_prompts_of_rows_that_a_ranking_leaves_out_are_named(tmp_path, write, caplog):
    rows = [{"query": "a", "pos": ["b"], "neg": ["c"], "prompt": "ask: "}, {"query": "d", "pos": ["e"]}]
    write(tmp_path / "rows.jsonl", rows)
    read_ranking({"test": [tmp_path / "rows.jsonl"]})
    assert "1 rows have a prompt or instruction of their own, which a ranking leaves out" in caplog.text
