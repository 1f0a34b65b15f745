"""The benchmarks of speed run at tiny size, and both sides have equal losses and vectors."""

import argparse
import json
import math

import encode_speed
import pytest
import start_speed
import train_sides
from train_sides import Work, run, without_dropout

STEPS = 3


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """24 pairs, each text once."""
    subjects = ("cat", "dog", "bird", "fish", "man", "woman")
    verbs = (("runs", "old"), ("eats", "new"), ("sleeps", "red"), ("sings", "blue"))
    pairs = [(f"the {one} {verb}", f"a {how} {one}") for one in subjects for verb, how in verbs]
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [json.dumps({"query": query, "positive": positive}) + "\n" for query, positive in pairs]
    path.write_text("".join(lines), "utf-8")
    return path


def losses(side, kind, rows, backbone, folder):
    out = folder / side / "out.json"
    out.parent.mkdir()
    run(Work(side, kind, "float32", str(rows), 8, 1, STEPS, 1, str(backbone), 64, True), out)
    found = json.loads(out.read_text("utf-8"))
    assert found["cpu"] > 0
    assert math.isfinite(found["peak_mib"])  # in a process that freed memory before, it may be none
    return found["losses"]


@pytest.mark.parametrize(
    "kind", ["infonce", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dims", "gradcache"))]
)
def test_both_sides_have_the_same_losses(kind, rows, tiny_bert, tmp_path, monkeypatch):
    backbone = without_dropout(tiny_bert, tmp_path / "model")
    width = json.loads((backbone / "config.json").read_text("utf-8"))["hidden_size"]
    monkeypatch.setitem(train_sides.OURS, "dims", {"plan": {"option": "dims", "dims": [width, 8]}})
    monkeypatch.setattr(train_sides, "DIMS", (width, 8))
    ours, peer = (losses(side, kind, rows, backbone, tmp_path) for side in ("ours", "peer"))
    assert len(ours) == STEPS
    assert ours == pytest.approx(peer, abs=1e-3)
    assert ours[0] != pytest.approx(ours[-1], abs=1e-6), "training moved it"


def test_both_sides_encode_to_the_same_vectors(tiny_bert, tmp_path):
    given = argparse.Namespace(model=str(tiny_bert), parts=["texts", "query"], repeats=1, queries=1)
    found = encode_speed.measured(given, ["a cat runs", "the red house", "a dog"], tmp_path)
    assert {(row["dtype"], row["layers"]) for row in found["texts"]} == {
        (dtype, layers) for dtype in ("float32", "bfloat16") for layers in (4, 2)
    }
    for row in found["texts"]:
        assert row["difference"] < (1e-5 if row["dtype"] == "float32" else 0.05), row
    assert [row["way"] for row in found["query"][1:]] == [f"layer {layer}" for layer in (4, 3, 2, 1)]


@pytest.mark.slow  # two processes that import everything
def test_both_sides_start_and_take_a_step(rows, tiny_bert, tmp_path):
    found = start_speed.measured(rows, str(tiny_bert), tmp_path, 1, 1, batch=8)
    (line,) = found["start"]
    assert all(line[f"{side}_{what}"] > 0 for side in ("ours", "peer") for what in ("cpu", "wall"))
    assert found["ratio_cpu"] == line["peer_cpu"] / line["ours_cpu"]
