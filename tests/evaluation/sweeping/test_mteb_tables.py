"""What mteb itself makes of a result tree: every cell once, none averaged away."""

import mteb
import pytest
from tasks import local_tasks
from tasks import swept as swept_by

from embedtrain.evaluation.catalogue.sources import facts_of
from embedtrain.evaluation.sweeping.mteb_tables import benchmark_table, results_of, tidy
from embedtrain.files.scores import main_scores
from embedtrain.types import Cell, InputError

CELLS = (Cell(1, 4), Cell(1, 16, "int8"), Cell(3, 4, "binary_rescore"), Cell(3, 16))
NAMES = ("colours", "mine")


@pytest.fixture
def swept(data_root, tmp_path, make_encoder):
    return tmp_path / "out/mteb", swept_by(make_encoder(), data_root, CELLS, tmp_path / "out", names=NAMES)


def test_mteb_loads_every_cell_once(swept):
    tree, _ = swept
    results = mteb.ResultCache(tree).load_results(
        models=["embedtrain/mine"], include_remote=False, load_experiments="match_name"
    )
    settings = [model.model_meta.experiment_kwargs if model.model_meta else None for model in results]
    assert len(settings) == len(CELLS)
    assert len({str(item) for item in settings}) == len(CELLS)
    assert all(model.model_revision == "w" and len(model.task_results) == 2 for model in results)
    assert len(results.to_dataframe()) == 2, "mteb's own frame has one row a task: it averages the cells"


def test_the_tidy_frame_keeps_them_apart_with_our_scores(swept):
    tree, scores = swept
    frame = tidy(tree)
    assert len(frame) == len(CELLS) * len(NAMES)
    assert not frame.duplicated(["task", "embed_dim", "n_layers", "output_dtypes"]).any()
    full = frame[frame["embed_dim"].isna() & frame["output_dtypes"].isna()]
    ours = {score.task: score.value for score in main_scores(scores) if (score.layer, score.dim) == (3, 16)}
    assert dict(zip(full["task"], full["score"], strict=True)) == pytest.approx(ours, abs=1e-6)
    assert sorted(frame["score"]) == pytest.approx(sorted(s.value for s in main_scores(scores)), abs=1e-6)


def test_mtebs_leaderboard_has_a_row_for_each_cell(swept, data_root):
    tree, scores = swept
    table = benchmark_table(tree, "mine", local_tasks(data_root, NAMES))
    assert len(table) == len(CELLS)
    assert table["_experiment_id"].nunique(dropna=False) == len(CELLS)
    expected = []
    for cell in CELLS:
        own = [s.value for s in main_scores(scores) if (s.layer, s.dim, s.dtype) == tuple(cell)]
        expected.append(sum(own) / len(own))
    assert sorted(table["Mean (Task)"]) == pytest.approx(sorted(expected), abs=1e-6)


def test_no_results_are_said(tmp_path):
    with pytest.raises(InputError, match="has no results"):
        results_of(tmp_path)


def test_facts_of_official_and_own_tasks(data_root):
    own = facts_of(local_tasks(data_root, ["mine"])[0])
    assert (own.type, own.dataset, own.official) == ("STS", "local", False)
    official = facts_of(mteb.get_task("STSBenchmark"))
    assert official.dataset == "mteb/stsbenchmark-sts"
    assert (official.hub_type, official.official) == ("sentence-similarity", True)
    assert official.revision == mteb.get_task("STSBenchmark").metadata.dataset["revision"]


def test_other_weights_of_one_name_get_a_name_of_their_own(data_root, tmp_path, make_encoder):
    tree, shown = tmp_path / "mteb", {}
    asked = {"models": ["embedtrain/mine"], "include_remote": False}
    for seed, revision in ((0, "a" * 40), (1, "b" * 40), (0, "a" * 40)):
        changes = {"names": ["mine"], "revision": revision}
        scores = swept_by(make_encoder(seed=seed), data_root, CELLS, tmp_path, **changes)
        found = mteb.ResultCache(tree).load_results(**asked, load_experiments="match_name").model_results
        assert {model.model_revision for model in found} == {revision}
        shown[revision] = sorted(model.task_results[0].get_score() for model in found)
        assert shown[revision] == pytest.approx(sorted(s.value for s in main_scores(scores)), abs=1e-6)
    every = tidy(tree)
    assert set(every["model"]) == {"embedtrain/mine", "embedtrain/mine_bbbbbbbb"}
    assert sorted(every[every["revision"] == "b" * 40]["score"]) == shown["b" * 40]
