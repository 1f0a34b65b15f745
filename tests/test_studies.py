"""The studies of documents without labels and of merging run to their end, tiny; their nDCG is mteb's."""

import json
import os
import sys
from pathlib import Path

import merging
import pairs
import pretraining
import pytest
from ndcg import ndcg

import embedtrain
from embedtrain.model.folder.export import load_encoder
from embedtrain.types import SubModel

CUTS = [[1, 8], [4, 32]]


def test_ndcg_is_that_of_mteb(tiny_bert, small_data, tmp_path):
    measured = embedtrain.evaluate(
        tiny_bert,
        tasks=["find"],
        data_root=str(small_data),
        layers=[2],
        dims=[16],
        output=str(tmp_path / "e"),
    )
    (expected,) = (score.value for score in measured.scores if score.metric == "ndcg_at_10")
    found = ndcg(load_encoder(tiny_bert), small_data / "retrieval/find", [SubModel(2, 16)])
    assert 0 < expected < 1
    assert found[SubModel(2, 16)].mean() == pytest.approx(100 * expected, abs=2e-3)


@pytest.fixture
def wiki(tmp_path):
    """Leads as in the package of them."""
    words = "cat dog bird fish red blue runs sleeps house river".split()
    articles = {
        str(n): {
            "title": f"{words[n % 10]} {n}",
            "extract": f"{words[n % 10]} {n} is a {words[n % 7]}. "
            + 25 * f"The {words[n % 9]} was in here. ",
        }
        for n in range(200)
    }
    path = tmp_path / "leads.json"
    path.write_text(json.dumps(articles), "utf-8")
    return path


@pytest.fixture
def real_data():
    data = os.environ.get("EMBEDTRAIN_DATA")
    if data is None:
        pytest.skip("set EMBEDTRAIN_DATA to the folder that holds retrieval/cranfield and sts/stsbenchmark")
    return Path(data)


@pytest.fixture
def small(monkeypatch, tiny_bert):
    """The studies on a model of 4 layers and 32 dims."""
    subs = [SubModel(*cut) for cut in CUTS]
    for module, name, value in (
        (pretraining, "CUTS", CUTS), (pairs, "CUTS", CUTS), (pairs, "SUBS", subs), (merging, "PLAN", CUTS),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    for module in (pretraining, pairs, merging):
        monkeypatch.setattr(module, "BACKBONE", str(tiny_bert))


def started(monkeypatch, study, *words):
    monkeypatch.setattr(sys, "argv", ["study", "--tiny", *map(str, words)])
    study.main()


@pytest.mark.slow
def test_pretraining_runs(small, monkeypatch, wiki, tmp_path, capsys):
    words = ["--wiki", wiki, "--work", tmp_path / "work", "--seeds", "1", "--out", tmp_path / "found.json"]
    started(monkeypatch, pretraining, *words)
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    methods = list(pretraining.METHODS)
    assert [row["method"] for row in found["cost"]] == methods
    assert len(found["scores"]) == len(pretraining.TASKS) * len(methods) * (len(CUTS) + 1)
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*") if path.is_file()}
    started(monkeypatch, pretraining, *words)
    assert {path: path.stat().st_mtime_ns for path in runs} == runs, "finished runs are left as they are"


@pytest.mark.slow
def test_pairs_run(small, monkeypatch, wiki, real_data, tmp_path):
    words = ["--wiki", wiki, "--data-root", real_data, "--work", tmp_path / "w", "--out", tmp_path / "f.json"]
    started(monkeypatch, pairs, *words)
    found = json.loads((tmp_path / "f.json").read_text("utf-8"))
    assert len(found["search"]) == 2 * (1 + len(pairs.MAKERS) + len(pairs.RATES) - 1)
    assert [row["cut"] for row in found["test"]] == 2 * ["1 x 8", "4 x 32", "mean"]


@pytest.mark.slow
def test_merging_runs(small, monkeypatch, real_data, tmp_path):
    methods = ["average", "ties", "greedy"]
    words = [
        "--data-root",
        real_data,
        "--work",
        tmp_path / "w",
        "--out",
        tmp_path / "f.json",
        "--methods",
        *methods,
    ]
    started(monkeypatch, merging, *words)
    found = json.loads((tmp_path / "f.json").read_text("utf-8"))
    named = ["untouched", *merging.DATA, "joint", *methods, "average + base"]
    assert [row["model"] for row in found["scores"]] == named
    own = [row["- joint (95 %)"] for row in found["scores"]]
    assert [bool(text) for text in own] == [name != "joint" for name in named]
