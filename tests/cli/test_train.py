"""One whole run on a tiny model: the run folder is a contract that other tools rely on."""

import csv
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from shipped import assert_shipped
from small_runs import command, read_rows

from embedtrain.files.measured.cost import read_cost
from embedtrain.files.measured.health import read_health
from embedtrain.files.measured.weights import read_weights
from embedtrain.files.scores import read_scores
from embedtrain.model.folder.export import load_encoder
from embedtrain.training.optim import AdamW
from embedtrain.types import SubModel

STEPS = 16  # two epochs of 64 rows in batches of 8
TRAINED = [SubModel(1, 8), SubModel(2, 16), SubModel(4, 32)]


@pytest.fixture(scope="session")
def finished(small_run, small_data, tmp_path_factory):
    """A run folder of the whole command, evaluation before and after and one cut included; only read it."""
    root = tmp_path_factory.mktemp("runs")
    more = "name=whole trainer.max_epochs=2 evaluation.tasks=[local] exports=[[2,16]]".split()
    places = [f"data.validation={small_data}/validation.jsonl", f"evaluation.data_root={small_data}"]
    words = [*small_run, *more, *places, f"output_root={root}"]
    command("train", *words)
    return root / "whole", words


@pytest.fixture
def copy(finished, tmp_path):
    """The same run to write in, and the words that made it with the new place."""
    folder, words = finished
    shutil.copytree(folder, tmp_path / "whole")
    return tmp_path / "whole", [*words, f"output_root={tmp_path}"]


def test_the_run_folder_holds_what_was_promised(finished):
    folder, _ = finished
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    expected = "config.yaml metrics.jsonl metrics.csv checkpoints/last.ckpt checkpoints/best.ckpt model mteb "
    expected += "model/model.safetensors cut_L2_D16/model.safetensors scores.jsonl heat_map.png "
    expected += "health.jsonl cost.jsonl weights.json"
    assert set(expected.split()) <= names
    assert not {name for name in names if name.endswith((".tmp", ".bin"))}
    assert (folder / "heat_map.png").read_bytes().startswith(b"\x89PNG")


def test_config_says_what_was_run_with_what(finished):
    folder, _ = finished
    facts = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    assert facts["config"]["data"]["batch_size"] == 8
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["world_size"] == 1
    assert facts["config"]["optim"]["weight_decay"] == AdamW().weight_decay  # which nobody gave
    assert facts["given"]["optim"].keys() == {"_target_", "lr"}
    assert {"base", "commit", "config", "given", "identity", "versions", "world_size"} == facts.keys()


def test_metrics_hold_every_step_and_the_table_is_the_same(finished):
    folder, _ = finished
    rows = read_rows(folder / "metrics.jsonl")
    trained = [row for row in rows if "train/loss" in row]
    assert [row["step"] for row in trained] == list(range(STEPS))
    names = ("loss", "grad_norm", "lr", "pairs_per_second", "seconds_per_step")
    expected = {f"train/{name}" for name in names}
    assert {"step", *expected, *(f"train/loss_{sub}" for sub in TRAINED)} == trained[0].keys()
    validated = [row for row in rows if "val/mean" in row]
    assert {"step", "val/mean", *(f"val/ndcg_at_10_{sub}" for sub in TRAINED)} == validated[0].keys()
    assert len(validated) == 4  # every quarter of the run
    with (folder / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    losses = [row["train/loss"] for row in trained]
    assert [float(row["train/loss"]) for row in table if row["train/loss"]] == losses
    assert losses[-1] < losses[0]


def test_every_cell_is_scored_before_and_after(finished):
    scores = read_scores(finished[0] / "scores.jsonl")
    cells = {(layer, dim) for layer in (1, 2, 4) for dim in (8, 16, 32)}
    for step in (0, STEPS):
        found = [score for score in scores if score.step == step and score.metric == "ndcg_at_10"]
        assert {(score.layer, score.dim) for score in found} == cells
        assert {(score.run, score.task) for score in found} == {("whole", "find")}
    assert {score.step for score in scores} == {0, STEPS}


def test_what_a_report_needs_is_measured_of_every_cell(finished):
    folder, _ = finished
    cells = {(layer, dim) for layer in (1, 2, 4) for dim in (8, 16, 32)}
    for step in (0, STEPS):
        lines = [line for line in read_health(folder) if line.step == step]
        assert {(line.layer, line.dim) for line in lines} == cells
        assert len(lines) == len(cells)
        assert all(line.pairs == 16 for line in lines)
    assert {(line.layer, line.texts > 1) for line in read_cost(folder)} == {
        (layer, batch) for layer in (1, 2, 4) for batch in (False, True)
    }
    weights = read_weights(folder)
    assert (weights.run, weights.step, weights.adapters) == ("whole", STEPS, None)
    assert weights.moved > 0.5
    assert {(cut.layer, cut.dim) for cut in weights.cuts} == set(TRAINED)
    assert all(-1 <= cut.least <= cut.cosine < 1 for cut in weights.cuts)
    assert weights.rows.rows == 32
    assert weights.rows.nearest >= weights.rows.nearest_before


def test_best_checkpoint_holds_weights(finished):
    best = torch.load(finished[0] / "checkpoints/best.ckpt", weights_only=False)
    assert best["state_dict"]
    assert "optimizer_states" not in best


@pytest.mark.parametrize(("name", "sub"), [("model", SubModel(4, 32)), ("cut_L2_D16", SubModel(2, 16))])
def test_sentence_transformers_gives_the_embeddings_of_training(finished, sentences, name, sub):
    folder, _ = finished
    assert_shipped(folder / name, load_encoder(folder / "model"), sentences, sub)


def test_the_model_is_that_of_the_last_checkpoint(finished):
    folder, _ = finished
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=False)["state_dict"]
    model = load_encoder(folder / "model")
    assert model.trained == tuple(TRAINED)
    own = {f"encoder.{name}": value for name, value in model.state_dict().items()}
    assert {name for name in own if name not in state} == {  # frozen, so the checkpoint leaves it out
        "encoder.backbone.pooler.dense.weight",
        "encoder.backbone.pooler.dense.bias",
    }
    for name in own.keys() & state.keys():
        torch.testing.assert_close(state[name], own[name], atol=0, rtol=0)


def test_a_finished_run_is_never_overwritten_unasked(copy, monkeypatch, capsys):
    folder, words = copy
    before = (folder / "model/model.safetensors").stat().st_mtime_ns
    with pytest.raises(SystemExit) as stopped:
        command("train", *words)
    assert stopped.value.code == 1
    assert "holds a finished run. Use another name=..., or overwrite=true" in capsys.readouterr().err
    assert (folder / "model/model.safetensors").stat().st_mtime_ns == before


def test_more_steps_of_a_finished_run_say_how_to_train_on(copy, error_of, tmp_path, monkeypatch):
    folder, words = copy
    said = error_of("train", *words, "trainer.max_steps=20")
    advice = f"name=whole-more backbone.path={folder}/model"
    assert f"max_steps was None, is 20: to train on from its weights, give {advice}." in said
    more = [word for word in words if not word.startswith(("name=", "backbone.path=", "evaluation."))]
    command("train", *more, *advice.split(), "trainer.max_steps=2")
    assert (tmp_path / "whole-more/model").exists()


def test_overwrite_replaces_it(copy, monkeypatch):
    folder, words = copy
    (folder / "checkpoints/best_L1_D8.ckpt").touch()
    command("train", *words, "overwrite=true", "trainer.max_steps=2", "evaluation.tasks=[]")
    assert not (folder / "checkpoints/best_L1_D8.ckpt").exists()
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f".{folder.name}.lock"}
    assert not (folder / "scores.jsonl").exists()
    assert (folder / "metrics.jsonl").read_text("utf-8").count("train/grad_norm") == 2


def test_evaluate_a_run(finished, small_data, tmp_path, monkeypatch, capsys):
    folder, _ = finished
    words = [f"model={folder}", "tasks=[find]", f"data_root={small_data}", f"output={tmp_path}/out"]
    command("evaluate", *words)
    after = [score for score in read_scores(folder / "scores.jsonl") if score.step == STEPS]
    found = {(s.layer, s.dim, s.metric): s.value for s in read_scores(tmp_path / "out/scores.jsonl")}
    assert found == pytest.approx({(s.layer, s.dim, s.metric): s.value for s in after}, abs=1e-6)
    assert (tmp_path / "out/heat_map.png").exists()
    assert str(tmp_path / "out/scores.jsonl") in capsys.readouterr().out.replace("\n", "")


def test_export_a_run(finished, sentences, tmp_path, monkeypatch, capsys):
    folder, _ = finished
    words = [f"model={folder}", "layer=1", "dim=8", f"out={tmp_path}/cut"]
    command("export", *words)
    assert "1 layers, 8 dims" in capsys.readouterr().out
    assert_shipped(tmp_path / "cut", load_encoder(folder / "model"), sentences, SubModel(1, 8))


def test_a_real_process_ends_with_the_message_and_status_1(tmp_path):
    command = [sys.executable, "-m", "embedtrain.cli.export", "model=nowhere/at_all", "out=cut"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
