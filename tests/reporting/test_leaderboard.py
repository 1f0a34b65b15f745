"""The leaderboard's means against the slow way, and files that read back."""

import csv

import pytest

from embedtrain.files.scores import TaskFacts
from embedtrain.reporting.leaderboard import leaderboard, write_leaderboard
from embedtrain.types import Score


def score(task, value, layer=2, dim=8, dtype="float32", split="test", metric="main"):
    return Score("run", 1, task, split, layer, dim, metric, value, dtype)


def facts(kind):
    return TaskFacts(kind, "sentence-similarity", "local", "r", "default", False)


TASKS = {"a": facts("STS"), "b": facts("STS"), "c": facts("Retrieval")}
SCORES = [
    *(score("a", 0.5), score("a", 0.9, metric="further"), score("a", 0.7, split="dev")),
    *(score("b", 0.8), score("c", 0.2)),
    *(score("a", 0.3, dtype="int8"), score("b", 0.3, dtype="int8"), score("c", 0.3, dtype="int8")),
    *(score("a", 0.1, layer=1, dim=4), score("c", 0.1, layer=1, dim=4)),
    score("c", 0.9, dtype="funnel_L1_D4_k8"),
]


def test_means_are_over_tasks_and_over_types():
    rows = leaderboard(SCORES, TASKS, {1: 10, 2: 20})
    assert [(row["Layer"], row["Dim"], row["Dtype"]) for row in rows] == [
        (2, 8, "float32"),
        (2, 8, "int8"),
        (1, 4, "float32"),
    ]
    first = rows[0]
    assert first["a"] == pytest.approx(60), "the mean of its splits, of the main metric alone"
    assert first["Mean (Task)"] == pytest.approx((60 + 80 + 20) / 3)
    assert first["STS"] == pytest.approx(70)
    assert first["Mean (TaskType)"] == pytest.approx((70 + 20) / 2)
    assert (first["Bytes per vector"], first["Parameters"]) == (32, 20)
    assert rows[1]["Bytes per vector"] == 8


def test_a_missing_task_leaves_its_means_empty():
    last = leaderboard(SCORES, TASKS, {})[-1]
    assert (last["b"], last["STS"], last["Mean (Task)"], last["Mean (TaskType)"]) == (None,) * 4
    assert last["Retrieval"] == pytest.approx(10)
    assert last["Parameters"] is None


def test_a_task_named_like_a_type_keeps_its_column():
    row = leaderboard([score("STS", 0.5)], {"STS": facts("STS")}, {})[0]
    assert (row["STS"], row["STS (task)"]) == (50, 50)


def test_files(tmp_path):
    write_leaderboard(tmp_path, leaderboard(SCORES, TASKS, {1: 10, 2: 20}))
    with (tmp_path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["Mean (Task)"] for row in rows] == ["53.3333", "30.0000", ""]
    lines = (tmp_path / "leaderboard.md").read_text("utf-8").splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("| Layer | Dim | Dtype |")
    assert {line.count("|") for line in lines} == {len(rows[0]) + 1}
    assert "| 53.33 |" in lines[2]
