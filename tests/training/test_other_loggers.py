"""TensorBoard, MLflow and trackio, read back by their own readers where they are installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_runs import compose, train_stopped

from embedtrain.cli.line.wandb_environment import with_wandb

ROOT = Path(__file__).parents[2]


@pytest.fixture
def words(small_run, tmp_path):
    more = "trainer.max_steps=4 trainer.checkpoint_every_n_steps=1 name=x loss.temperature=0.2"
    return [*small_run, *more.split(), f"output_root={tmp_path}"]


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@needs("tensorboard")
def test_event_files_of_tensorboard_have_every_step(words, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_stopped([*words, "logger=tensorboard"], 2)
    (folder,) = (path.parent for path in list((tmp_path / "x").rglob("events.out.*"))[:1])
    events = EventAccumulator(str(folder))
    events.Reload()
    assert sorted({event.step for event in events.Scalars("train/loss")}) == [0, 1, 2, 3]
    assert (folder / "hparams.yaml").exists()


@needs("mlflow")
def test_mlflow_has_every_step_and_setting(words, tmp_path, monkeypatch):
    import mlflow

    place = f"file:{tmp_path}/mlruns"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more than mlflow-skinny
    train_stopped([*words, "logger=mlflow", f"+logger.tracking_uri={place}"], 2)
    client = mlflow.MlflowClient(tracking_uri=place)
    (experiment,) = (one for one in client.search_experiments() if one.name == "embedtrain")
    (run,) = client.search_runs([experiment.experiment_id])
    steps = {item.step for item in client.get_metric_history(run.info.run_id, "train/loss")}
    assert steps == {0, 1, 2, 3}
    assert run.data.params["loss/temperature"] == "0.2"


READ_TRACKIO = """
import trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("embedtrain")
lines = SQLiteStorage.get_logs("embedtrain", run.name)
steps = sorted({line["step"] for line in lines if "train/loss" in line})
print(run.name, steps, run.config["loss"]["temperature"])
"""


@needs("trackio")
def test_trackio_has_one_run_with_every_step(words, tmp_path):
    place = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import sys; from embedtrain.cli.train import main; main()"
    call = [sys.executable, "-c", code, *words, "logger=trackio"]
    subprocess.run(call, env=place, check=True, timeout=300)
    call = [sys.executable, "-c", READ_TRACKIO]
    read = subprocess.run(call, env=place, capture_output=True, text=True, check=True, timeout=60)
    assert read.stdout.strip() == "x [0, 1, 2, 3] 0.2"


def test_the_sweep_file_is_one_that_the_command_takes(tmp_path):
    sweep = yaml.safe_load((ROOT / "sweeps/wandb.yaml").read_text("utf-8"))
    program, *words, arguments = sweep["command"]
    assert (program, sweep["program"], arguments) == ("${program}", "embedtrain-train", "${args_no_hyphens}")
    parameters = sweep["parameters"].items()
    drawn = [f"{key}={facts.get('values', [facts.get('min')])[0]}" for key, facts in parameters]
    settings = compose([*words, *drawn, "backbone.path=x"])
    assert settings.optim.settings["lr"] == 1e-6
    first, second = (
        with_wandb(settings, {"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": trial}, []) for trial in ("a1", "b2")
    )
    assert (first.name, first.logger.settings["name"], second.name) == ("sweep-a1", "sweep-a1", "sweep-b2")
    assert with_wandb(settings, {"WANDB_RUN_ID": "a1"}, []).name == "sweep"
    assert first.logger.settings["offline"] is False
