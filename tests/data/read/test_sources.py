import math

import pytest
from small_runs import write_rows

from embedtrain.data.read.sources import check_all_scored_or_none, read_examples
from embedtrain.types import InputError


def write(path, *rows):
    write_rows(path, rows)
    return str(path)


def one(tmp_path, row, **options):
    (example,) = read_examples(write(tmp_path / "a.jsonl", row), **options)
    return example


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"query": "q", "positive": "p"}, ("q", ("p",), (), None)),
        ({"query": "q", "positives": ["p", "r", "p"]}, ("q", ("p", "r"), (), None)),
        ({"query": "q", "positive": ["p", "r"]}, ("q", ("p", "r"), (), None)),
        ({"query": "q", "positive": "p", "negative": "n"}, ("q", ("p",), ("n",), None)),
        ({"query": "q", "positive": "p", "negatives": ["n", "m"]}, ("q", ("p",), ("n", "m"), None)),
        ({"anchor": "q", "positive": "p", "negative_2": "m", "negative_1": "n"},
         ("q", ("p",), ("n", "m"), None)),
        ({"sentence1": "q", "sentence2": "p", "score": 3}, ("q", ("p",), (), 3.0)),
        ({"query": "q", "positive": "p", "score": 0.0, "id": 7}, ("q", ("p",), (), 0.0)),
        ({"query": "q", "positive": "p", "negative": None, "score": None}, ("q", ("p",), (), None)),
    ],
)  # fmt: skip
def test_row_forms(tmp_path, row, expected):
    assert one(tmp_path, row)[:4] == expected


@pytest.mark.parametrize(
    ("row", "prompts", "expected"),
    [
        ({}, None, (None, None)),
        ({}, {"query": "query: ", "document": ""}, ("query: ", "")),
        ({}, {"query": None, "document": "passage: "}, (None, "passage: ")),
        ({"instruction": "Find it"}, None, ("Instruct: Find it\nQuery: ", None)),
        ({"instruction": "Find it"}, {"query": "query: ", "document": "x"},
         ("Instruct: Find it\nQuery: ", "x")),
        ({"instruction": ""}, {"query": "query: "}, ("", None)),
        ({"instruction": None}, {"query": "query: "}, ("query: ", None)),
    ],
)  # fmt: skip
def test_the_prompt_of_a_row_wins_over_that_of_its_dataset(tmp_path, row, prompts, expected):
    example = one(tmp_path, {"query": "q", "positive": "p", **row}, prompts=prompts)
    assert (example.query, example.positives) == ("q", ("p",))
    assert example.prompts == expected


def test_scored_pairs_may_have_one_prompt_on_both_sides(tmp_path):
    prompt = "Instruct: Retrieve similar text\nQuery: "
    row = {"sentence1": "q", "sentence2": "p", "score": 3}
    example = one(tmp_path, row, prompts={"query": prompt, "document": prompt})
    assert example.prompts == (prompt, prompt)


def test_a_column_of_instructions_may_have_any_name(tmp_path):
    row = {"query": "q", "positive": "p", "task_prompt": "Find it"}
    example = one(tmp_path, row, columns={"instruction": "task_prompt"})
    assert example.prompts.query == "Instruct: Find it\nQuery: "


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"querry": "q: "},
         r"a\.jsonl: prompts: 'querry' is no role of a text, only query and document\. .*'query'"),
        ({"document": 3}, r"a\.jsonl: 'prompts\.document' must be a text, got int"),
        ({"query": "\ud800"}, r"'prompts\.query' holds half a character"),
    ],
)  # fmt: skip
def test_a_bad_prompt_of_a_dataset_is_named(tmp_path, prompts, message):
    with pytest.raises(InputError, match=message):
        one(tmp_path, {"query": "q", "positive": "p"}, prompts=prompts)


def test_place_and_task_of_an_example(tmp_path):
    row = {"query": "q", "positive": "p"}
    path = str(tmp_path / "a.jsonl")
    assert one(tmp_path, row).where == f"{path}:1"
    assert one(tmp_path, row).task == f"{tmp_path.name}/a"
    assert one(tmp_path, row, task="given").task == "given"
    assert one(tmp_path, {**row, "task": "own"}, task="given").task == "own"


def test_columns_rename_and_win_over_the_usual_names(tmp_path):
    row = {"question": "q", "answer": "p", "positive": 7, "query": 8}
    columns = {"query": "question", "positive": "answer"}
    assert one(tmp_path, row, columns=columns)[:2] == ("q", ("p",))
    assert one(tmp_path, {"query": "p", "x": "q"}, columns={"positive": "query", "query": "x"})[:2] == (
        "q",
        ("p",),
    )
    assert (
        one(tmp_path, {"sentence1": "q", "sentence2": "p", "gold": 1}, columns={"score": "gold"}).score == 1.0
    )


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"query": "q", "positve": "p", "other": "o"}, {},
         r"a\.jsonl:1: field 'positive' is missing; the row has .* Did you mean 'positve'"),
        ({}, {}, "field 'query' is missing; the row has nothing"),
        ({"query": None, "positive": "p"}, {}, "field 'query' is null"),
        ({"query": "q", "positive": "p"}, {"columns": {"query": "question"}}, "field 'question' is missing"),
        ({"query": "q", "positive": "p"}, {"columns": {"score": "gold"}}, "field 'gold' is missing"),
        ({"query": "q", "positive": "p"}, {"columns": {"qery": "x"}},
         "'qery' is no field of a row. Did you mean 'query'"),
        ({"query": " ", "positive": "p"}, {}, "1: 'query' is an empty text"),
        ({"query": "q", "positives": []}, {}, "'positives' is an empty list"),
        ({"query": "q", "positives": ["p", ""]}, {}, "'positives' is an empty text"),
        ({"query": "q", "positive": "p", "negatives": ["n", 3]}, {},
         "'negatives' must be a text, got int: '3'"),
        ({"query": ["q"], "positive": "p"}, {}, "'query' must be a text, got list"),
        ({"query": "q\ud800", "positive": "p"}, {}, "half a character at position 2"),
        ({"query": "q", "positive": "p", "score": "high"}, {}, "'score' must be a number, got str: 'high'"),
        ({"query": "q", "positive": "p", "score": "2,6"}, {}, "a number with a decimal point, 2.6, got str"),
        ({"query": "q", "positive": "p", "score": True}, {}, "'score' must be a number, got bool"),
        ({"query": "q", "positive": "p", "score": math.nan}, {}, "'score' must be finite, got nan"),
        (
            {"query": "q", "positive": "p", "negatives": ["n", "m"], "score": 1},
            {},
            "a scored row is one pair",
        ),
        ({"query": "q", "positive": "p", "instruction": 3}, {}, "'instruction' must be a text"),
        ({"query": "q", "positive": "p", "task": 3}, {}, "'task' must be a text"),
    ],
)  # fmt: skip
def test_bad_row_is_named(tmp_path, row, options, message):
    with pytest.raises(InputError, match=message):
        one(tmp_path, row, **options)


def test_scored_and_unscored_rows_do_not_mix(tmp_path):
    path = write(
        tmp_path / "a.jsonl", {"query": "q", "positive": "p", "score": 1}, {"query": "q", "positive": "p"}
    )
    with pytest.raises(InputError, match=r"a\.jsonl:2 is a pair .* and .*a\.jsonl:1 is a scored pair"):
        read_examples(path)
    check_all_scored_or_none([])


def test_rows_of_different_tasks_may_be_scored_and_unscored(tmp_path):
    scored = {"query": "q", "positive": "p", "score": 1, "task": "s"}
    path = write(tmp_path / "a.jsonl", scored, {"query": "q", "positive": "p", "task": "t"})
    assert [example.score for example in read_examples(path)] == [1.0, None]


def test_teacher_scores_are_those_of_positives_then_negatives(tmp_path):
    row = {"query": "q", "positives": ["p", "o"], "negatives": ["n"], "teacher_scores": [3, 2.5, -1]}
    assert one(tmp_path, row).teacher == (3.0, 2.5, -1.0)
    assert one(tmp_path, {"query": "q", "positive": "p"}).teacher == ()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], r"a\.jsonl:1: 'teacher_scores' has 1 numbers for 2 documents"),
        (3, "must be a list of numbers, got int"),
        ([1, "x"], "'teacher_scores' must be a number, got str"),
        ([1, float("inf")], "'teacher_scores' must be finite, got inf"),
    ],
)
def test_teacher_scores_that_do_not_fit(tmp_path, scores, message):
    with pytest.raises(InputError, match=message):
        one(tmp_path, {"query": "q", "positive": "p", "negative": "n", "teacher_scores": scores})


def test_empty_dataset_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"a\.jsonl: holds no rows"):
        read_examples(tmp_path / "a.jsonl")


def test_hub_dataset_is_loaded_by_name_config_and_split(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(*arguments, **options):
        asked.append((arguments, options))
        return [{"query": "q", "positive": "p"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_examples("owner/name:pair", split="dev")[0].where == "owner/name:pair: row 1"
    read_examples("owner/name")
    assert asked == [(("owner/name", "pair"), {"split": "dev"}), (("owner/name", None), {"split": "train"})]


def test_hub_without_network_says_what_is_missing_and_what_works(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load(*_, **__):
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        InputError, match=r"owner/name: no such local .*ConnectionError: no route\).* give a local file"
    ):
        read_examples("owner/name")


def test_name_under_an_existing_folder_is_a_missing_file_not_a_hub_name(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="data/train: no such file or folder"):
        read_examples("data/train")
    with pytest.raises(InputError, match=r"owner/train\.jsonl: no such file"):
        read_examples("owner/train.jsonl")
