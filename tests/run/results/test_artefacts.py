"""What a run, an evaluation and an export leave for others: leaderboards, and cards with scores."""

import csv

import mteb
import pytest
from huggingface_hub import ModelCard
from small_runs import command

from embedtrain.evaluation.catalogue.tasks import find_tasks
from embedtrain.evaluation.sweeping.mteb_tables import benchmark_table, tidy
from embedtrain.files.scores import main_scores, read_scores


@pytest.fixture(scope="module")
def run(small_run, small_data, tmp_path_factory):
    root = tmp_path_factory.mktemp("artefacts")
    words = [f"output_root={root}", "name=mine", "trainer.max_steps=3", "exports=[[2,16]]"]
    command("train", *small_run, *words, "evaluation.tasks=[local]", f"evaluation.data_root={small_data}")
    return root / "mine"


def score_of(run, layer, dim):
    (found,) = [
        score.value
        for score in main_scores(read_scores(run / "scores.jsonl"))
        if (score.step, score.layer, score.dim) == (3, layer, dim)
    ]
    return found


def indexed(folder):
    """Task -> value of a card's model-index."""
    card = ModelCard.load(folder / "README.md").data
    return {item.dataset_name: item.metric_value for item in card.eval_results or []}


def test_a_run_leaves_a_leaderboard_of_the_trained_model(run):
    with (run / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    found = {(int(row["Layer"]), int(row["Dim"])): float(row["find"]) for row in rows}
    for sub in ((4, 32), (2, 16)):
        assert found[sub] == pytest.approx(100 * score_of(run, *sub), abs=1e-3)
    assert [row["Retrieval"] for row in rows] == [row["Mean (TaskType)"] for row in rows]
    assert int(rows[0]["Parameters"]) > int(rows[-1]["Parameters"]) > 1000
    assert (run / "leaderboard.md").read_text("utf-8").count("\n") == 11


def test_the_model_and_each_cut_say_their_own_scores(run):
    assert indexed(run / "model") == {"find (local)": score_of(run, 4, 32)}
    assert indexed(run / "cut_L2_D16") == {"find (local)": score_of(run, 2, 16)}


def test_an_export_has_the_scores_of_its_cell(run, tmp_path):
    command("export", f"model={run}", "layer=1", "dim=8", f"out={tmp_path}/measured")
    assert indexed(tmp_path / "measured") == {"find (local)": score_of(run, 1, 8)}
    command("export", f"model={run}/model", "layer=3", "dim=8", f"out={tmp_path}/unmeasured")
    assert indexed(tmp_path / "unmeasured") == {}


def test_an_evaluation_leaves_a_leaderboard(run, small_data, tmp_path):
    words = [f"model={run}", "tasks=[find]", f"data_root={small_data}", f"output={tmp_path}/out"]
    command("evaluate", *words, "layers=[2]", "dims=[16]", "dtypes=[float32,binary]", "store=none")
    with (tmp_path / "out/leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["Dtype"], row["Bytes per vector"]) for row in rows] == [("float32", "64"), ("binary", "2")]
    assert float(rows[0]["find"]) == pytest.approx(100 * score_of(run, 2, 16), abs=1e-3)


def cell_of(experiment):
    """(layer, dim) of embed_dim_16__n_layers_2__normalize_post; "" is the whole model."""
    settings = dict(part.rsplit("_", 1) for part in experiment.split("__") if part)
    return int(settings.get("n_layers", 4)), int(settings.get("embed_dim", 32))


def scores_at(run, step):
    """(layer, dim) -> main score of the one task in scores.jsonl."""
    scores = main_scores(read_scores(run / "scores.jsonl"))
    return {(score.layer, score.dim): score.value for score in scores if score.step == step}


@pytest.mark.parametrize(("name", "step"), [("mine", 3), ("mine_untouched", 0)])
def test_mteb_reads_the_trained_and_the_untouched_model_under_two_names(run, name, step):
    found = mteb.ResultCache(run / "mteb").load_results(
        models=[f"embedtrain/{name}"], include_remote=False, load_experiments="match_name"
    )
    shown = {}
    for model in found.join_revisions().model_results:
        cell = (model.model_meta.experiment_kwargs if model.model_meta else None) or {}
        (task,) = model.task_results
        shown[cell.get("n_layers", 4), cell.get("embed_dim", 32)] = task.get_score()
    assert scores_at(run, 0) != scores_at(run, 3)
    assert shown == pytest.approx(scores_at(run, step), abs=1e-6)


@pytest.mark.parametrize(("name", "step"), [("mine", 3), ("mine_untouched", 0)])
def test_tables_of_mtebs_tree_have_both_models(run, small_data, name, step):
    rows = tidy(run / "mteb").query("model == @name", local_dict={"name": f"embedtrain/{name}"})
    cells = rows.fillna({"n_layers": 4, "embed_dim": 32})
    found = {(int(row.n_layers), int(row.embed_dim)): row.score for row in cells.itertuples()}
    assert found == pytest.approx(scores_at(run, step), abs=1e-6)
    table = benchmark_table(run / "mteb", "mine", find_tasks(["local"], small_data))
    table = table[table["Model"] == f"embedtrain/{name}"].fillna({"_experiment_id": ""})
    found = {cell_of(row[0]): row[1] for row in table[["_experiment_id", "Mean (Task)"]].to_numpy()}
    assert found == pytest.approx(scores_at(run, step), abs=1e-5)
