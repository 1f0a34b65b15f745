import logging

import pytest

from embedtrain.files.scores import append_scores, main_scores, read_scores, write_scores
from embedtrain.types import InputError, Score

ROWS = [
    Score("räume", 0, "mine", "test", 1, 8, "cosine_spearman", 0.5),
    Score("räume", 0, "mine", "test", 1, 8, "cosine_pearson", 0.25),
    Score("räume", 7, "mine", "test", 1, 8, "cosine_spearman", -1.0),
    Score("räume", 7, "mine", "test", 1, 8, "cosine_spearman", 0.75, "int8"),
]


def test_rows_come_back_as_they_were_written_and_appended(tmp_path):
    path = tmp_path / "new" / "scores.jsonl"
    assert read_scores(path) == []
    write_scores(path, ROWS[:1])
    append_scores(path, ROWS[1:])
    assert read_scores(path) == ROWS
    write_scores(path, ROWS[2:])
    assert read_scores(path) == ROWS[2:]
    assert [file.name for file in path.parent.iterdir()] == ["scores.jsonl"]


def test_the_first_row_of_a_cell_is_its_main_metric():
    assert main_scores(ROWS) == [ROWS[0], ROWS[2], ROWS[3]]


def test_a_line_cut_off_by_a_kill_is_left_out_and_logged(tmp_path, caplog):
    path = tmp_path / "scores.jsonl"
    write_scores(path, ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING):
        assert read_scores(path) == ROWS[:3]
    assert "cut off" in caplog.text


GOOD = '{"run": "a", "step": 0, "task": "t", "split": "s", "layer": 1, "dim": 2, "metric": "m", "value": 1}\n'


def test_a_line_without_a_dtype_is_of_float32_vectors_and_every_line_written_has_one(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text(GOOD)
    (score,) = read_scores(path)
    assert score.dtype == "float32"
    write_scores(path, [score])
    assert '"dtype": "float32"' in path.read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops\n", r"scores.jsonl:2 cannot be read"),
        ("[1]\n", r"scores.jsonl:2: expected a JSON object, got list"),
        (GOOD.replace('"step": 0, ', ""), r"scores.jsonl:2: no step; there are run, task"),
        (GOOD.replace("}", ', "dtype": 8}'), r"scores.jsonl:2: dtype has the wrong type, got 8"),
        (GOOD.replace('"dim": 2', '"dim": "2"'), r"scores.jsonl:2: dim has the wrong type, got '2'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "scores.jsonl"
    path.write_text(GOOD + line)
    with pytest.raises(InputError, match=message):
        read_scores(path)
