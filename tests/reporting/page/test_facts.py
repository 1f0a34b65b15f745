"""What a page is told of a folder: everything that its files hold, and words for what is not there."""

import math

import pytest
from report_runs import write_report_run

from embedtrain.files.measured.metrics import read_metrics
from embedtrain.files.scores import append_scores
from embedtrain.reporting.page.curves import thinned
from embedtrain.reporting.page.facts import MISSING, run_facts, shown
from embedtrain.reporting.page.html import json_inside, page_data
from embedtrain.reporting.page.table import score_table
from embedtrain.types import Score


def score(value, step=3, task="a", split="test", layer=2, dim=8, dtype="float32", run="r", metric="main"):
    return Score(run, step, task, split, layer, dim, metric, value, dtype)


def test_a_table_has_means_of_splits_of_the_main_metric_and_gaps():
    rows = [
        *(score(0.5), score(0.9, metric="further"), score(0.7, split="dev"), score(0.1, step=0)),
        *(
            score(0.2, task="b"),
            score(0.3, dtype="int8"),
            score(0.9, dtype="funnel_L1_D4_k8"),
            score(0.4, step=1),
        ),
    ]
    table = score_table(rows, {}, trains=True)
    assert [task["name"] for task in table["tasks"]] == ["a", "b"]
    assert table["cells"] == [[2, 8, "float32"], [2, 8, "int8"]]
    assert (table["steps"], table["before"], table["after"]) == ([0, 1, 3], 0, 3)
    assert table["scores"] == {"0": [[10, None], [None, None]], "3": [[60, 20], [30, None]]}


def test_an_evaluation_has_an_after_alone_and_an_unfinished_run_a_before():
    assert [
        score_table([score(1, step=0)], {}, trains=no)[key]
        for no in (False, True)
        for key in ("before", "after")
    ] == [
        *(None, 0),
        *(0, None),
    ]
    assert score_table([], {}, trains=True)["cells"] == []


@pytest.mark.parametrize("length", [1, 400, 401, 5000])
def test_long_curves_keep_their_ends_and_extremes(length):
    values = [math.sin(step / 7) for step in range(length)]
    values[length // 2] = 99.0
    steps, kept = thinned(range(length), values, 400)
    assert len(steps) <= 400
    assert (steps[0], steps[-1]) == (0, length - 1)
    assert max(kept) == 99.0
    assert [values[step] for step in steps] == kept
    assert steps == sorted(set(steps))


def test_every_number_of_the_metrics_is_a_point(runs):
    curves = run_facts(runs[0])[0]["curves"]
    lines = read_metrics(runs[0] / "metrics.jsonl")
    for name in {name for line in lines for name in line.values}:
        number, values = curves["series"][name]
        expected = {line.step: line.values[name] for line in lines if name in line.values}
        assert dict(zip(curves["steps"][number], values, strict=True)) == pytest.approx(expected, rel=1e-4)


def test_models_that_share_a_folder_are_runs_of_their_own(tmp_path):
    append_scores(tmp_path / "scores.jsonl", [score(0.5, run="a"), score(0.6, run="b")])
    found = run_facts(tmp_path)
    assert [run["name"] for run in found] == [f"{tmp_path.name} · a", f"{tmp_path.name} · b"]
    assert [run["scores"]["3"] for run in found] == [[[50]], [[60]]]
    assert found[0]["state"] == "evaluation"


DAMAGE = [
    b"",
    b"{",
    b"{\n",
    b"[]\n",
    b"null\n",
    b"\xff\xfe\n",
    b'{"step": "x"}\n',
    b'{"value": NaN}\n',
    b"[" * 100_000 + b"\n",
]
FILES = [
    *(
        "scores.jsonl",
        "tasks.json",
        "metrics.jsonl",
        "health.jsonl",
        "cost.jsonl",
        "weights.json",
        "verdict.json",
    ),
    *("config.yaml", "finished.json", "model/embedtrain.json", "map/RetrievalTask0.parquet"),
]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_takes_nothing_else_with_it(name, tmp_path):
    folder = write_report_run(tmp_path / "run", tasks=2)
    whole = run_facts(folder)[0]
    for content in DAMAGE:
        (folder / name).write_bytes(content)
        (found,) = run_facts(folder)
        json_inside(page_data([found], "1"))
        same = [
            key
            for key in ("scores", "curves", "health", "cost", "weights", "contract", "settings")
            if found[key] == whole[key]
        ]
        assert len(same) >= 5, (content, same)
        assert found["problems"] or content not in (b"{\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"), content
    (folder / name).unlink()
    (folder / name).mkdir()
    assert run_facts(folder)[0]["name"] == "run"


def test_an_empty_folder_says_what_each_part_would_need(tmp_path):
    (found,) = run_facts(tmp_path)
    assert (found["state"], found["problems"], found["missing"]) == ("empty folder", [], MISSING)


def test_texts_are_written_out_and_stay_data():
    data = shown({"a\x1b": ["\u202e</script>", math.nan, 1.5]})
    assert data == {"a\\x1b": ["\\u202e</script>", None, 1.5]}
    assert "<" not in json_inside(data)


def test_a_folder_that_goes_while_it_is_read_is_said_to_be_gone(tmp_path):
    (facts,) = run_facts(tmp_path / "gone")
    assert facts["state"] == "folder is gone"
    assert facts["problems"]
