"""What is written is read back, missing files say nothing, damaged ones name the place."""

import json
import math

import pytest

from embedtrain.files.measured.cost import COST, Speed, add_cost, read_cost
from embedtrain.files.measured.health import HEALTH, Health, add_health, read_health
from embedtrain.files.measured.metrics import read_metrics
from embedtrain.files.measured.verdict import (
    VERDICT,
    Change,
    Cut,
    Finding,
    Verdict,
    read_verdict,
    write_verdict,
)
from embedtrain.files.measured.weights import (
    WEIGHTS,
    Adapters,
    Moved,
    MovedCut,
    Weights,
    read_weights,
    write_weights,
)
from embedtrain.types import InputError

HEALTHY = Health("mine", 3, "STS", 2, 8, "abc", 9, -1.5, 3.25, 0.5, 1.0, 0.1, (0, 4, 1))
FAST = Speed("mine", 2, 1, 12, 2, 10, 1.5, 1.0, 3.0, "cpu", 1)
MOVED = Weights(
    "mine",
    3,
    (Moved("embeddings", 30, 0.0, 0.0, 0.0), Moved("1", 10, 0.5, 0.25, 1.0)),
    (MovedCut(1, 8, 0.5, 0.25),),
    7,
    Adapters(2, 0.1, 0.75),
)
JUDGED = Verdict(
    "mine",
    3,
    ("ship L1_D8",),
    (Change("STS", "test", "cosine_spearman", 2, 8, "float32", 0.5, 0.75, 0.1, 0.4, 0.01, "better"),),
    Cut(1, 8, "int8", "keeps 99 %", 70.0, 71.0, 0.98, 8, None, 1.5),
    (Finding("forgetting", "the loss falls", "embedtrain-train optim.lr=1e-6"),),
    0.25,
)
# name of the file, what adds a value to a folder, what reads it, a value
FILES = {
    HEALTH: (lambda folder: add_health(folder, [HEALTHY]), read_health, [HEALTHY]),
    COST: (lambda folder: add_cost(folder, [FAST]), read_cost, [FAST]),
    WEIGHTS: (lambda folder: write_weights(folder, MOVED), read_weights, MOVED),
    VERDICT: (lambda folder: write_verdict(folder, JUDGED), read_verdict, JUDGED),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_is_read_back(name, tmp_path):
    write, read, value = FILES[name]
    assert not read(tmp_path)
    write(tmp_path)
    write(tmp_path)  # again: nothing doubles
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert read(tmp_path) == value


def spoilt(row, key, value):
    kept = {name: old for name, old in row.items() if name != key}
    return json.dumps(kept if value is None else kept | {key: value})


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_its_place(name, tmp_path):
    write, read, _ = FILES[name]
    write(tmp_path)
    file = tmp_path / name
    whole = json.loads(file.read_text("utf-8"))
    for text, said in (
        ("[1]", "expected a JSON object"),
        ("{", "cannot be read"),
        (spoilt(whole, "run", None), "no run"),
        (spoilt(whole, "run", 7), "run has the wrong type"),
        (spoilt(whole, "step" if "step" in whole else "layer", True), "wrong type"),
    ):
        file.write_text(text + "\n", "utf-8")
        with pytest.raises(InputError, match=said) as caught:
            read(tmp_path)
        assert name in str(caught.value)


def test_lines_of_one_measurement_replace_those_of_the_last(tmp_path):
    add_health(tmp_path, [HEALTHY, HEALTHY._replace(layer=1)])
    add_health(tmp_path, [HEALTHY._replace(hubness=2.0)])
    assert [(line.layer, line.hubness) for line in read_health(tmp_path)] == [(1, 0.5), (2, 2.0)]
    add_cost(tmp_path, [FAST, FAST._replace(texts=32)])
    add_cost(tmp_path, [FAST._replace(ms=9.0)])
    assert [(line.texts, line.ms) for line in read_cost(tmp_path)] == [(32, 1.5), (1, 9.0)]


def test_a_line_that_was_cut_off_is_left_out_and_unknown_fields_are_too(tmp_path):
    add_health(tmp_path, [HEALTHY])
    file = tmp_path / HEALTH
    row = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(row | {"new": 1}) + "\n" + json.dumps(row)[:20], "utf-8")
    assert read_health(tmp_path) == [HEALTHY]


def test_a_share_of_moved_weights_counts_every_number_once():
    assert MOVED.moved == 10 / 40
    assert MOVED._replace(blocks=()).moved == 0.0


def test_metrics_are_numbers_by_name(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert read_metrics(file) == []
    file.write_text(
        '{"step": 0, "train/loss": 2}\n{"step": 1, "train/loss": "nan"}\n{"step": 2, "tra', "utf-8"
    )
    first, second = read_metrics(file)
    assert first == (0, {"train/loss": 2.0})
    assert second.step == 1
    assert math.isnan(second.values["train/loss"])


@pytest.mark.parametrize("line", ["[]", "{}", '{"step": 1, "train/loss": []}', "1", "{"])
def test_a_line_that_is_no_metrics_is_named(line, tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"step": 0}}\n{line}\n', "utf-8")
    with pytest.raises(InputError, match=r"metrics\.jsonl:2 is not a line of metrics"):
        read_metrics(file)
