"""Official names served from rows in the local layout."""

import logging
import os
from pathlib import Path

import pytest
from tasks import swept

from embedtrain.evaluation.catalogue.official.statistics import differences
from embedtrain.evaluation.catalogue.sources import source_of
from embedtrain.evaluation.catalogue.tasks import find_tasks, load
from embedtrain.files.scores import main_scores
from embedtrain.types import Cell, InputError

DATA = os.environ.get("EMBEDTRAIN_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="EMBEDTRAIN_DATA does not name a folder with real data")
OFFICIAL = "b0fddb56ed78048fa8b90373c8a3cfc37b684831"


@pytest.fixture
def sts(tmp_path, write):
    rows = [{"sentence1": f"cat {n}", "sentence2": f"dog {n % 3}", "score": n % 6} for n in range(12)]
    write(tmp_path / "sts/stsbenchmark/test.jsonl", rows)
    write(tmp_path / "sts/stsbenchmark/dev.jsonl", rows[:4])
    return tmp_path


def one(*names, root, **settings):
    (task,) = find_tasks(names, root, **settings)
    return task


def test_rows_serve_the_official_task_in_its_columns_and_order(sts, caplog):
    task = one("STSBenchmark", root=sts)
    with caplog.at_level(logging.WARNING):
        load(task)
    assert task.metadata.name == "STSBenchmark"
    assert source_of(task).how == "rows"
    assert task.dataset["test"]["sentence1"][:] == [f"cat {n}" for n in range(12)]
    assert "STSBenchmark test is not quite the published data" in caplog.text
    assert "num_samples is 12, published 1379" in caplog.text
    assert "number_of_characters is" in caplog.text


def test_the_revision_is_that_of_the_rows_also_once_they_are_unloaded(sts, write):
    task = one("STSBenchmark", root=sts)
    first = task.metadata.revision
    load(task)
    task.unload_data()
    assert task.metadata.revision == first != OFFICIAL
    assert source_of(task).revision == OFFICIAL
    write(sts / "sts/stsbenchmark/test.jsonl", [{"sentence1": "a", "sentence2": "b", "score": 1}])
    assert one("STSBenchmark", root=sts).metadata.revision != first


def test_splits_have_more_than_one_name(sts):
    task = one("STSBenchmark:validation", root=sts)
    load(task)
    assert {split: len(rows) for split, rows in task.dataset.items()} == {"validation": 4}


def test_a_set_without_the_split_is_not_taken_and_said(sts, caplog):
    (sts / "sts/stsbenchmark/test.jsonl").unlink()
    with caplog.at_level(logging.WARNING):
        task = one("STSBenchmark", root=sts)
    assert source_of(task).how == "hub"
    assert "sts/stsbenchmark cannot serve STSBenchmark: it has no split test, only dev" in caplog.text


def test_a_path_names_the_own_set_and_a_name_the_official_task(sts):
    (sts / "sts/stsbenchmark").rename(sts / "sts/STSBenchmark")
    assert source_of(one("STSBenchmark", root=sts)).how == "rows"
    assert source_of(one("sts/STSBenchmark", root=sts)).how == "own"
    with pytest.raises(InputError, match="STSBenchmark is both an official task and a local set"):
        find_tasks(["local", "STSBenchmark"], sts)


def test_one_subset_of_a_multilingual_task_is_served_and_several_are_not(tmp_path, write, caplog):
    rows = [{"text": f"{word} {n}", "label": word} for n in range(3) for word in ("alarm", "news")]
    for split in ("train", "test"):
        write(tmp_path / f"classification/massiveintentclassification/{split}.jsonl", rows)
    with caplog.at_level(logging.WARNING):
        assert source_of(one("MassiveIntentClassification", root=tmp_path)).how == "hub"
    assert "the task has 51 subsets and rows are of one; choose languages" in caplog.text
    task = one("MassiveIntentClassification:test", root=tmp_path, languages=["deu"])
    load(task)
    assert set(task.dataset) == {"de"}
    assert set(task.dataset["de"]) == {"train", "test"}


def test_a_ranking_serves_an_official_retrieval_task_with_its_judged_queries(data_root, write, make_encoder):
    (data_root / "retrieval/find").rename(data_root / "retrieval/scifact")
    with (data_root / "retrieval/scifact/queries.jsonl").open("a") as file:
        file.write('{"id": "unjudged", "text": "who?"}\n')
    task = one("SciFact", root=data_root)
    load(task)
    part = task.dataset["default"]["test"]
    assert len(part["queries"]) == 10
    assert (len(part["corpus"]), part["top_ranked"]) == (40, None)


def test_only_numbers_that_differ_are_named():
    shipped = {"num_samples": 5, "average": 1.5, "text": {"unique_texts": 3, "labels": {"a": {"count": 1}}}}
    assert differences(shipped, shipped) == []
    found = {"num_samples": 5, "average": 9.0, "text": {"unique_texts": 4, "labels": {"a": {"count": 2}}}}
    assert differences(found, shipped) == ["text.unique_texts is 4, published 3"]


@needs_data
def test_real_sets_serve_their_official_tasks(caplog):
    tasks = find_tasks(["STSBenchmark", "SICK-R", "Banking77Classification"], Path(DATA))
    assert [source_of(task).how for task in tasks] == ["rows"] * 3
    with caplog.at_level(logging.WARNING):
        for task in tasks:
            load(task)
    assert [len(task.dataset["test"]) for task in tasks[:2]] == [1379, 5000]
    assert "SICK-R test is not quite the published data" in caplog.text
    assert "num_samples is 5000, published 9927" in caplog.text


@pytest.mark.slow
@needs_data
def test_the_official_sts_benchmark_from_rows_scores_as_published(minilm_path, tmp_path):
    from embedtrain.model.folder.export import load_encoder

    task = one("STSBenchmark", root=Path(DATA))
    scores = swept(load_encoder(minilm_path), [task], [Cell(6, 384)], tmp_path)
    assert main_scores(scores)[0].value == pytest.approx(0.8203, abs=5e-5)
