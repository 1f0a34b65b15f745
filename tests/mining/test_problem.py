"""Who may not be whose negative."""

import pytest

from embedtrain.data.read.sources import Prompts
from embedtrain.mining.problem import problems_of
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
