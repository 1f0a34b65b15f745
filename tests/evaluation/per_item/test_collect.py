from itertools import product

import mteb
import numpy as np
import pytest
import torch
from scipy import stats
from tasks import local_tasks

from embedtrain.evaluation.per_item.collect import WRITES_NOTHING, Collector
from embedtrain.evaluation.sweeping.adapter import ServedCell, model_meta
from embedtrain.evaluation.vectors.bank import GridBank
from embedtrain.types import Cell

CELLS = (Cell(1, 4), Cell(3, 16))
ABOUT = {"run": "mine", "step": 0, "layer": 3, "dim": 16, "dtype": "float32", "weights": "w", "data": "d",
         "mteb": "2"}  # fmt: skip


def silent(*_):
    """Progress that nobody sees."""


def measured(encoder, task, cells=CELLS):
    """mteb's result and our items of each cell."""
    task.load_data()
    collector = Collector(task)
    bank = GridBank(encoder, [cell.layer for cell in cells], silent)
    for cell in cells:
        meta = model_meta(cell, num_layers=3, width=16, run="mine", revision="w")
        with collector.during():
            quiet = {"cache": None, "co2_tracker": False, "show_progress_bar": False}
            outcome = mteb.evaluate(
                ServedCell(bank, cell, meta), task, prediction_folder=WRITES_NOTHING, **quiet
            )
        result = outcome.task_results[0]
        yield result, collector.items({**ABOUT, "task": task.metadata.name}, result)


@pytest.mark.parametrize("name", ["mine", "twins", "colours", "find"])
def test_the_items_make_the_score(make_encoder, data_root, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (task,) = local_tasks(data_root, [name])
    main = task.metadata.main_score
    for result, items in measured(make_encoder(), task):
        ((split, scores),) = result.scores.items()
        kept = items[split]
        assert next(iter(kept.about.statistics)) == main
        for metric in kept.about.statistics:
            expected = scores[0][metric]
            rounded = 5e-6 if name == "find" else 1e-9  # mteb gives its ranking metrics to five digits
            assert kept.sample(metric).score() == pytest.approx(expected, abs=rounded)
    assert not (tmp_path / WRITES_NOTHING).exists()


def test_items_of_two_cells_are_the_same_questions(make_encoder, data_root):
    for name in ("mine", "twins", "colours", "find"):
        (task,) = local_tasks(data_root, [name])
        (_, one), (_, other) = measured(make_encoder(), task)
        for split in one:
            assert np.array_equal(one[split].ids, other[split].ids)
            assert np.array_equal(one[split].gold, other[split].gold)
            assert len(one[split].ids) > 5


def test_the_task_is_left_as_it_was(make_encoder, data_root):
    (task,) = local_tasks(data_root, ["find"])
    list(measured(make_encoder(), task, CELLS[:1]))
    assert {"_save_task_predictions", "task_specific_scores"}.isdisjoint(vars(task))


def test_an_official_ranking_metric_is_made_of_its_queries(make_encoder, data_root):
    for main in ("map_at_10", "mrr_at_10", "recall_at_10", "precision_at_5", "hit_rate_at_3", "accuracy"):
        (task,) = local_tasks(data_root, ["find"])
        type(task).metadata = task.metadata.model_copy(update={"main_score": main})
        ((result, items),) = measured(make_encoder(), task, CELLS[:1])
        kept = items["test"]
        assert list(kept.about.statistics) == [main, "ndcg_at_10"]
        assert kept.sample().score() == pytest.approx(result.scores["test"][0]["main_score"], abs=5e-6)


def test_clusterings_keep_their_experiments(make_encoder, make_clustering):
    words = "red green blue".split()
    task = make_clustering(
        [(f"{word} {number % 7} {number % 5}", word) for number, word in product(range(20), words)]
    )
    ((result, items),) = measured(make_encoder(), task, CELLS[1:])
    kept = items["test"]
    assert kept.ids.tolist() == list(range(10))
    assert kept.sample().score() == pytest.approx(result.scores["test"][0]["v_measure"], abs=1e-9)


def test_similarities_are_kept_to_the_last_bit(make_encoder, data_root):
    (task,) = local_tasks(data_root, ["mine"])
    ((_, items),) = measured(make_encoder(), task, CELLS[1:])
    kept = items["test"]
    similarity = kept.values["cosine_spearman"][:, 0]
    assert torch.tensor(similarity).float().double().tolist() == similarity.tolist()
    assert kept.sample().score() == pytest.approx(stats.spearmanr(similarity, kept.gold)[0], abs=1e-12)
