"""Who may not be whose negative."""

import json

import pytest

from embedtrain.data.sources import Prompts
from embedtrain.mining.problem import problems_of, read_corpus, read_retrieval
from embedtrain.types import InputError


def texts(problem, numbers):
    return [problem.documents[number] for number in numbers]


def test_labelled_positives_of_equal_queries_and_the_query_itself_are_banned(example):
    rows = [
        example("cat", ["feline", "dog"]),
        example("cat", ["kitten"], ["table"]),
        example("dog", ["hound", "cat"]),
    ]
    (problem,) = problems_of(enumerate(rows))
    assert problem.documents == ("feline", "dog", "kitten", "hound", "cat", "table")
    assert [query.text for query in problem.queries] == ["cat", "dog"]
    assert problem.query_of.tolist() == [0, 0, 1]
    assert texts(problem, problem.positives[0]) == ["feline", "dog", "kitten"]
    assert texts(problem, problem.banned[0]) == ["feline", "dog", "kitten", "cat"]
    assert texts(problem, problem.banned[1]) == ["dog", "hound", "cat"]
    assert problem.pool == 6


def test_a_corpus_comes_first_and_labelled_texts_outside_it_are_no_candidates(example):
    rows = [example("cat", ["feline"]), example("dog", ["b"], task="other")]
    (problem,) = problems_of(enumerate(rows), corpus=["a", "b", "c"])
    assert problem.documents == ("a", "b", "c", "feline")
    assert problem.pool == 3
    assert [found.tolist() for found in problem.banned] == [[], [1]]
    assert [found.tolist() for found in problem.positives] == [[3], [1]]


def test_rows_of_different_tasks_have_documents_of_their_own(example):
    rows = [example("cat", ["feline"]), example("dog", ["hound"], task="u"), example("cow", ["cattle"])]
    first, second = problems_of(enumerate(rows))
    assert first.documents == ("feline", "cattle")
    assert first.rows.tolist() == [0, 2]
    assert second.documents == ("hound",)
    assert second.rows.tolist() == [1]


def test_kept_negatives_are_labelled_and_no_candidates(example):
    (problem,) = problems_of(enumerate([example("cat", ["feline"], ["table"])]), keep_negatives=True)
    assert texts(problem, problem.labelled(0)) == ["feline", "table"]
    assert texts(problem, problem.banned[0]) == ["feline", "table"]


def test_instructions_make_queries_of_one_text_differ_and_share_their_labels(example):
    rows = [
        example("cat", ["feline"], prompts=Prompts(query="one: ")),
        example("cat", ["kitten"], prompts=Prompts(query="two: ")),
    ]
    (problem,) = problems_of(enumerate(rows), instructions=True)
    assert [query.prompt for query in problem.queries] == ["one: ", "two: "]
    assert [found.tolist() for found in problem.positives] == [[0, 1], [0, 1]]
    (problem,) = problems_of(enumerate(rows))
    assert [query.prompt for query in problem.queries] == [None]


def test_rows_that_cannot_be_mined(example):
    with pytest.raises(InputError, match=r"rows.jsonl:1: a scored row takes no negatives"):
        problems_of(enumerate([example("cat", ["feline"], score=0.5)]))
    with pytest.raises(InputError, match="no rows to mine"):
        problems_of([])


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_corpus_file(tmp_path, caplog):
    caplog.set_level("INFO")
    rows = [{"text": "a", "title": "t"}, {"text": "b"}, {"text": "b", "title": ""}, {"text": " "}]
    assert read_corpus(write(tmp_path / "corpus.jsonl", *rows)) == ["t a", "b"]
    assert "left out documents without text" in caplog.text
    with pytest.raises(InputError, match=r"corpus.jsonl:1: needs a 'text'; the row has 'txt'"):
        read_corpus(write(tmp_path / "corpus.jsonl", {"txt": "a"}))
    with pytest.raises(InputError, match="holds no documents"):
        read_corpus(write(tmp_path / "corpus.jsonl", {"text": ""}))


def test_a_retrieval_set_gives_a_row_for_each_judged_query(tmp_path):
    folder = tmp_path / "retrieval/r"
    write(folder / "corpus.jsonl", {"id": "1", "text": "a"}, {"id": 2, "text": "b"}, {"id": "3", "text": ""})
    write(folder / "queries.jsonl", {"id": "x", "text": "q"}, {"id": "y", "text": "p"})
    judged = [("x", "2", 2), ("x", "1", 0), ("x", "3", 1), ("y", "1", 0)]
    names = ("query_id", "corpus_id", "score")
    write(folder / "qrels.jsonl", *(dict(zip(names, row, strict=True)) for row in judged))
    rows, corpus = read_retrieval(folder)
    assert [(row.query, row.positives, row.task) for row in rows] == [("q", ("b",), "r")]
    assert corpus == ["a", "b"]
    write(folder / "qrels.jsonl", {"query_id": "x", "corpus_id": "9"})
    with pytest.raises(InputError, match=r"qrels.jsonl:1: judges the document '9', which is not there"):
        read_retrieval(folder)
    write(folder / "qrels.jsonl", {"query_id": "x", "corpus_id": "1", "score": 0})
    with pytest.raises(InputError, match="no positives to mine beside"):
        read_retrieval(folder)
