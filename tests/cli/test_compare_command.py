import json

import pytest
from scored_runs import FULL, HALF, SMALL, write_run
from small_runs import command

from embedtrain.types import Cell


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    def call(*words):
        monkeypatch.setenv("COLUMNS", "200")
        command("compare", *words, f"output={tmp_path / 'out'}")
        return capsys.readouterr().out, json.loads((tmp_path / "out/comparison.json").read_text())

    return call


def test_two_runs_give_a_table_and_a_file(run, tmp_path):
    write_run(tmp_path / "a", {FULL: 0.0, HALF: -0.1})
    write_run(tmp_path / "b", {FULL: 0.05, HALF: -0.1}, seed=1)
    shown, written = run(f"runs=[{tmp_path / 'a'},{tmp_path / 'b'}]")
    assert len(written["rows"]) == 4
    said = {(row["task"], row["first"]["cell"]): row["verdict"] for row in written["rows"]}
    assert said["one", "L6_D384"] == "better"
    assert said["one", "L6_D96"] == "not distinguishable"
    assert shown.count("better") == 2
    assert [row["tasks"] for row in written["over_tasks"]] == [2, 2]
    assert written["smallest"] == []
    again, _ = run(f"runs=[{tmp_path / 'a'},{tmp_path / 'b'}]")
    assert again == shown


def test_one_run_is_compared_with_its_largest_cell(run, tmp_path):
    folder = write_run(tmp_path / "a", {FULL: 0.0, HALF: 0.0, SMALL: -0.1})
    shown, written = run(f"runs=[{folder}]", "tasks=[one,two]", "correction=bh", "interval=percentile")
    assert {row["first"]["cell"] for row in written["rows"]} == {"L6_D384"}
    smallest = [(row["task"], row["cell"]) for row in written["smallest"]]
    assert smallest == [("one", "L6_D96"), ("two", "L6_D96")]
    assert "smallest cut that is not worse" in shown
    _, chosen = run(f"runs=[{folder}]", "cells=[[6,96],[2,32,float32]]")
    assert {(row["first"]["cell"], row["second"]["cell"]) for row in chosen["rows"]} == {("L6_D96", "L2_D32")}


def test_seeds_are_aggregated(run, tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"a_s{seed}", {FULL: 0.0, SMALL: -0.1}, seed=seed)
    shown, written = run(f"runs=[{tmp_path / 'a'}]", "seeds=_s*", "cells=[[6,384],[2,32]]")
    assert {row["verdict"] for row in written["rows"]} == {"worse"}
    assert written["rows"][0]["first"]["seeds"]["n"] == 3
    assert "(n=3)" in shown


def test_a_subset_keeps_the_ranking(run, tmp_path):
    cells = {Cell(layer, 32 * layer): 0.01 * layer for layer in range(1, 7)}
    folder = write_run(tmp_path / "a", cells, tasks=("one", "two", "three", "four"))
    shown, written = run(f"runs=[{folder}]", "subset=true", "floor=0.9")
    found = written["subset"]
    assert found["models"] == 6
    assert found["spearman"] >= 0.9
    assert len(found["kept"]) + len(found["steps"]) == 4
    assert "rank correlation with all tasks" in shown


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("correction=fdr", "correction must be one of holm, bh, bonferroni, none, got 'fdr'"),
        ("interval=t", "interval must be one of bca, percentile, got 't'"),
        ("alpha=1.5", "alpha must be between 0 and 1"),
        ("resamples=10", "resamples must be 100 or more"),
        ("cells=[[6,384]]", "only the cell L6_D384 to compare"),
        ("cells=[[6]]", "cells must be [layer, dim] or [layer, dim, dtype]"),
        ("tasks=[four]", "no scores of four"),
        ("floors=0.9", "unknown config key 'floors'; did you mean 'floor'"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, capsys, word, message):
    folder = write_run(tmp_path / "a", {FULL: 0.0, HALF: 0.0}, tasks=["one"])
    with pytest.raises(SystemExit):
        run(f"runs=[{folder}]", word)
    assert message in capsys.readouterr().err
