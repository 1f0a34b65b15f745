"""Rows as other tools write them: read by shape, the same in memory and streamed, and said in one line."""

import gzip
import json
import re

import pytest
from small_runs import write_rows, write_table

from embedtrain import console
from embedtrain.data.read.forms import FORMS
from embedtrain.data.read.sources import read_examples
from embedtrain.data.stores.arrow import ArrowRows
from embedtrain.types import InputError

PAIR = ("q one", ("p one",), (), None)
TRIPLET = ("q one", ("p one",), ("n one",), None)
SCORED = ("q one", ("p one",), (), 1.0)
PASSAGE = {"docid": "d", "title": "T", "text": "p one"}
SETTINGS = {"negatives": {}, "teacher": (), "prompts": (None, None)}


def read(path, tmp_path, **options):
    """The examples, which memory and stream give alike."""
    examples = read_examples(path, **options)
    store = ArrowRows(path, cache=tmp_path / "cache", **options)
    assert store.take(range(len(store))) == examples
    return examples


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(console, "log", lines.append)
    return lines


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "q one", "answer": "p one"}, PAIR),
        ({"answer": "p one", "question": "q one"}, PAIR),
        ({"anchor": "q one", "positive": "p one", "negative": "n one"}, TRIPLET),
        ({"query": "q one", "document": "p one"}, PAIR),
        ({"query": "q one", "reply": "p one", "url": "http", "lang": "en"}, PAIR),
        ({"title": "q one", "body": "p one"}, PAIR),
        ({"premise": "q one", "hypothesis": "p one"}, PAIR),
        ({"text1": "q one", "text2": "p one"}, PAIR),
        ({"sentence_B": "p one", "sentence_A": "q one", "pair_ID": 3}, PAIR),
        ({"sent0": "q one", "sent1": "p one", "hard_neg": "n one"}, TRIPLET),
        ({"sentence1": "q one", "sentence2": "p one", "sentence3": "n one"}, TRIPLET),
        ({"sentence1": "q one", "sentence2": "p one", "label": 1}, SCORED),
        ({"question1": "q one", "question2": "p one", "is_duplicate": True}, SCORED),
        ({"sentence1": "q one", "sentence2": "p one", "similarity_score": "1.0"}, SCORED),
        ({"query": "q one", "positive": "p one", "negative": ""}, PAIR),
        ({"query": "q one", "pos": ["p one"], "neg": ["n one", " ", None]}, TRIPLET),
        ({"query": "q one", "positive_1": "p one", "neg_1": "n one", "neg_2": None}, TRIPLET),
        (
            {"query": "q one", "positive": {"text": "p one"}, "negative": {"title": "n", "text": "one"}},
            TRIPLET,
        ),
        ({"set": ["q one", "p one"]}, PAIR),
        ({"prompt": "q one", "chosen": "p one", "rejected": "n one"}, TRIPLET),
        ({"prompt": "q one", "response": "p one", "metadata": {"x": 1}}, PAIR),
        ({"question": "q one", "answers": ["p one"], "hard_negatives": ["n one"]}, TRIPLET),
        ({"question": "q one", "context": "p one", "answers": {"text": ["p"], "answer_start": [0]}}, PAIR),
        ({"sentence": "q one"}, ("q one", (), (), None)),
        ({"text": "q one", "label": 3}, ("q one", (), (), None)),
    ],
)
def test_the_only_reading_is_taken(tmp_path, row, expected):
    path = write_rows(tmp_path / "a.jsonl", [row])
    assert read(path, tmp_path)[0][:4] == expected


@pytest.mark.parametrize(
    ("row", "teacher"),
    [
        ({"pos_scores": [0.9], "neg_scores": [0.3, 0.2]}, (0.9, 0.3, 0.2)),
        ({"teacher_scores": [0.9, 0.3, 0.2]}, (0.9, 0.3, 0.2)),
        ({"score": [0.9, 0.3, 0.2]}, (0.9, 0.3, 0.2)),
        ({"label": [0.5, 0.25]}, (0.0, -0.5, -0.25)),
    ],
)
def test_scores_of_a_teacher_come_as_lists_or_margins(tmp_path, row, teacher):
    row = {"query": "q", "pos": ["p"], "neg": ["n", "m"]} | row
    (example,) = read(write_rows(tmp_path / "a.jsonl", [row]), tmp_path)
    assert (example.score, example.teacher, example.negatives) == (None, teacher, ("n", "m"))


def test_one_number_beside_a_negative_is_a_margin(tmp_path):
    row = {"query": "q", "positive": "p", "negative": "n", "label": 7.0}
    assert read(write_rows(tmp_path / "a.jsonl", [row]), tmp_path)[0].teacher == (7.0, 0.0)


def test_scores_of_documents_that_are_left_out_go_with_them(tmp_path):
    row = {
        "query": "q",
        "pos": ["p"],
        "neg": ["n", "", "n", "m"],
        "pos_scores": [4],
        "neg_scores": [3, 2, 1, 0],
    }
    (example,) = read(write_rows(tmp_path / "a.jsonl", [row]), tmp_path)
    assert (example.negatives, example.teacher) == (("n", "m"), (4.0, 3.0, 0.0))


def test_flagembedding_rows_say_what_is_what(tmp_path, said):
    row = {"query": "q", "pos": ["p"], "neg": [], "prompt": "Find: ", "type": "normal", "id": 1}
    path = write_rows(tmp_path / "a.jsonl", [row, row | {"id": 2}])
    assert read_examples(path)[0].prompts == ("Find: ", None)
    (line,) = said
    assert line.startswith(
        f"{path}: read as FlagEmbedding: pos as positive; neg as negative. left alone: type ("
    )


@pytest.mark.parametrize(
    ("instruction", "prompt"), [("Find it", "Instruct: Find it\nQuery: "), ("Find: ", "Find: "), ("", "")]
)
def test_pairs_of_instruction_and_text(tmp_path, instruction, prompt):
    row = {"query": [instruction, "q"], "pos": [["This", "p"]], "neg": [["This", "n"]]}
    (example,) = read(write_rows(tmp_path / "a.jsonl", [row]), tmp_path)
    assert example[:3] == ("q", ("p",), ("n",))
    assert example.prompts == (prompt, "This ")


@pytest.mark.parametrize(
    "row",
    [
        {"query": "q", "positive_passages": [PASSAGE], "negative_passages": [{"title": "", "text": "n"}]},
        {"query": "q", "positive_passages": {"title": ["T"], "text": ["p one"]},
         "negative_passages": {"title": [""], "text": ["n"]}},
        {"question": "q", "answers": ["a"], "positive_ctxs": [PASSAGE], "negative_ctxs": [{"text": "random"}],
         "hard_negative_ctxs": [{"title": None, "text": "n", "score": 3}]},
    ],
)  # fmt: skip
def test_passages_are_title_and_text(tmp_path, row):
    (example,) = read(write_rows(tmp_path / "a.jsonl", [row]), tmp_path)
    assert example[:3] == ("q", ("T p one",), ("n",))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", '["q one", "p one", "n one"]\n["q", "p", "n"]\n', TRIPLET),
        ("a.json", '[["q one", "p one"], ["q", "p"]]', PAIR),
        ("a.csv", 'query,positive,negative\nq one,"p one","n one"\nq,"p, and",\n', TRIPLET),
        ("a.csv", "frage;antwort\nq one;p one\nq ?;p !\n", PAIR),
        ("a.csv", 'sentence1,sentence2,label\nq one,p one,1\n"q\n\ntwo",p,0\n', SCORED),
        ("a.tsv", "q one\tp one\tn one\nq\tp\tn\n", TRIPLET),
        ("a.tsv", "q one\tp one\t1.0\nq\tp\t0.5\n", SCORED),
        ("a.tsv", 'question\tanswer\nq one\tp one\n"q ""x"" "\t"p\n', PAIR),
        ("a.csv.gz", "query,positive\nq one,p one\nq,p\n", PAIR),
    ],
)
def test_rows_without_names_and_tables(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    examples = read(path, tmp_path)
    assert len(examples) == 2
    assert examples[0][:4] == expected


@pytest.mark.parametrize(
    ("cell", "negatives"),
    [
        ('["n, one", "m"]', ("n, one", "m")),
        ("['n, one', \"m's\"]", ("n, one", "m's")),
        ("['n, one' 'm'\n 'o']", ("n, one", "m", "o")),
        ("[]", ()),
        ("[music] plays", ("[music] plays",)),
        ("[1]", ("[1]",)),
    ],
)
def test_cells_may_hold_lists(tmp_path, cell, negatives):
    path = write_table(tmp_path / "a.csv", [{"query": "q one", "pos": '["p one"]', "neg": cell}])
    (example,) = read(path, tmp_path)
    assert example[:3] == ("q one", ("p one",), negatives)


def test_scores_in_cells(tmp_path):
    row = {"query": "q", "pos": '["p"]', "neg": '["n", "m"]', "score": "[0.5, 0.25, 0.125]"}
    assert read(write_table(tmp_path / "a.csv", [row]), tmp_path)[0].teacher == (0.5, 0.25, 0.125)


def test_quotes_and_line_breaks_in_cells(tmp_path):
    (tmp_path / "a.csv").write_text('query,positive\n"q\n\ntwo","say ""p"""\nq,p\n')
    first, second = read_examples(tmp_path / "a.csv")
    assert first[:2] == ("q\n\ntwo", ('say "p"',))
    assert (first.where, second.where) == (f"{tmp_path}/a.csv:2", f"{tmp_path}/a.csv:5")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", b"query,positive\nq,p\nq,p,n\n", r"a\.csv:3: has 3 cells, the first row has 2"),
        ("a.tsv", b"query\tpositive\nq\xff\tp\n", r"a\.tsv:2: is not UTF-8"),
        ("a.csv", b"query,positive\nq,p\nq\xff,p\n", r"a\.csv:3: is not UTF-8"),
        ("a.csv", b'query,positive\nq,"p\nq,p\n', r"a\.csv:2: 2 lines were read as one.*unexpected end"),
    ],
)
def test_bad_rows_of_tables_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(InputError, match=message):
        read_examples(tmp_path / name)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": "x y", "b": "x z", "c": "x w"}, "'a', 'b', 'c' is the query.*{query: a, positive: b}"),
        ({"question": "q", "answer": "a", "context": "c"}, "'answer' and 'context' could both be"),
        ({"query": "q", "anchor": "a", "positive": "p"}, "'query' and 'anchor' could both be the query"),
        ({"premise": "q", "hypothesis": "p", "label": 0}, "a class, or how alike the texts are"),
        ({"sentence1": "q", "sentence2": "p", "label": 2}, "query: sentence1, positive: sentence2, score"),
        ({"sentence1": "q", "sentence2": "p", "label": "entailment"}, "a class, or how alike"),
        ({"query": ["a", "q"], "pos": [["a", "p"], ["b", "r"]]}, "the documents have 2 instructions"),
        ({"query": "q", "positive": {"body_text": "p"}}, "field 'positive.text' is missing"),
        ({"set": ["q"]}, "'set' must hold two texts or more"),
        ({"query": "q", "pos": ["p"], "neg": ["n", "m"], "score": [1]}, "1 numbers for 1 positives and"),
    ],
)  # fmt: skip
def test_what_could_be_several_things_is_asked(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read_examples(write_rows(tmp_path / "a.jsonl", [row]))


def test_the_cure_of_an_ambiguous_row_works(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"a": "x y", "b": "x z", "c": "x w"}])
    assert read_examples(path, columns={"query": "a", "positive": "b"})[0][:2] == ("x y", ("x z",))
    row = {"sentence1": "q", "sentence2": "p", "label": 2}
    columns = {"query": "sentence1", "positive": "sentence2"}
    path = write_rows(tmp_path / "b.jsonl", [row])
    assert read_examples(path, columns=columns)[0].score is None
    assert read_examples(path, columns=columns | {"score": "label"})[0].score == 2.0


def test_rows_are_read_like_the_first_and_our_own_are_not_spoken_of(tmp_path, said):
    rows = [{"left": "q one", "right": "p one"}, {"left": "q two", "right": "p two", "note": "a b"}]
    examples = read_examples(write_rows(tmp_path / "a.jsonl", rows))
    assert [example.positives for example in examples] == [("p one",), ("p two",)]
    with pytest.raises(InputError, match="field 'query' is missing"):
        read_examples(write_rows(tmp_path / "b.jsonl", [{"query": "q", "positive": "p"}, *rows]))
    said.clear()
    own = {
        "query": "q",
        "positives": ["p"],
        "negative_1": "n",
        "teacher_scores": [1, 0],
        "task": "t",
        "id": 1,
    }
    read_examples(write_rows(tmp_path / "c.jsonl", [own, {"text": "t", "task": "s"}]))
    assert said == []
    read_examples(write_rows(tmp_path / "d.jsonl", [own | {"meta": 1}, own | {"meta": 2, "id": 2}]))
    assert said == [f"{tmp_path}/d.jsonl: left alone: meta"]


def test_every_form_of_others_is_in_the_docs(request):
    page = (request.config.rootpath / "docs/data.md").read_text("utf-8")
    for form in FORMS:
        assert form.name in page, form.name
        assert all(f"`{mark}`" in page for mark in form.marks), form.name


def test_class_labels_become_triplets(tmp_path, said):
    from embedtrain.data.labelled import main

    rows = [{"text": f"text {n}", "label": n % 3} for n in range(12)]
    main([str(write_rows(tmp_path / "a.jsonl", rows)), str(tmp_path / "b.jsonl")])
    label = {row["text"]: row["label"] for row in rows}
    made = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert len(made) == 12
    for row in made:
        assert label[row["query"]] == label[row["positive"]] != label[row["negative"]]
        assert row["query"] != row["positive"]
    read_examples(tmp_path / "a.jsonl")
    assert "class labels (label) are no pairs" in said[-1]


def turn(role, content):
    return {"role": role, "content": content}


ASKED = [turn("user", "q one"), turn("assistant", "p one")]
OTHER = [turn("user", "q one"), turn("assistant", "n one")]
MARKED = {"is_selected": [0, 1], "passage_text": ["n one", "p one"], "url": ["http", "http"]}


@pytest.mark.parametrize(
    ("row", "expected", "how"),
    [
        ({"messages": ASKED}, PAIR, "the user's text of messages is the query, the assistant's its positive"),
        ({"messages": [turn("system", "Be kind."), *ASKED], "id": 3}, PAIR, "another text is left out"),
        ({"conversations": [{"from": "human", "value": "q one"}, {"from": "gpt", "value": "p one"}]}, PAIR,
         "text of conversations"),
        ({"messages": ASKED[:1], "positive_messages": [[turn("user", "p one")]],
          "negative_messages": [[turn("user", "n one")]]}, TRIPLET, "and negative_messages"),
        ({"messages": ASKED[:1], "positive_messages": [turn("user", "p one")]}, PAIR, "positive_messages"),
        ({"chosen": ASKED, "rejected": OTHER}, TRIPLET, "preferences"),
        ({"prompt": "q one", "chosen": ASKED[1:], "rejected": OTHER, "score_chosen": 3.0}, TRIPLET,
         "the answer of chosen its positive"),
        ({"prompt": ASKED[:1], "chosen": ASKED[1:], "rejected": OTHER[1:]}, TRIPLET, "rejected a negative"),
        ({"query": "q one", "query_id": 7, "answers": ["short"], "passages": MARKED}, TRIPLET,
         "above 0 in passages.is_selected are positives, others negatives, answers left alone"),
        ({"query": "q one", "passages": [{"is_selected": 0, "passage_text": "n one"},
                                         {"is_selected": 1, "passage_text": "p one"}]}, TRIPLET, "selected"),
        ({"query": "q one", "docs": ["n one", "p one"], "labels": [0, 2]}, TRIPLET, "above 0 in labels"),
        ({"messages": [turn("user", [{"type": "text", "text": "q one"}]), ASKED[1]]}, PAIR, "chats"),
        ({"query": "q one", "passage_one": "p one", "passage_two": "n one"}, TRIPLET, "numbered columns"),
        ({"query": "q one", "passage1": "p one", "passage2": "n one"}, TRIPLET, "numbered columns"),
    ],
)  # fmt: skip
def test_fields_inside_lists_are_read_where_one_reading_exists(tmp_path, said, row, expected, how):
    path = write_rows(tmp_path / "a.jsonl", [row])
    assert read(path, tmp_path)[0][:4] == expected
    assert how in said[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": ASKED * 2}, "2 texts of the user and 2 of the assistant: which is the query"),
        ({"messages": ASKED[:1]}, "1 texts of the user and 0 of the assistant"),
        ({"chosen": ASKED * 2, "rejected": OTHER}, "2 texts of the user, and a row has one query"),
        ({"messages": ASKED, "positive_messages": [ASKED]}, "a chat of 'positive_messages' must have one"),
        ({"query": "q", "passages": {"is_selected": [0], "passage_text": ["n"]}}, "'positives' is an empty"),
    ],
)  # fmt: skip
def test_chats_of_several_readings_are_asked_about(tmp_path, row, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_examples(write_rows(tmp_path / "a.jsonl", [row]))


def test_columns_that_the_user_names_win_over_lists(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"query": "q one", "answers": ["p one"], "passages": MARKED}])
    (example,) = read_examples(path, columns={"query": "query", "positives": "answers"})
    assert example[:4] == PAIR
