"""A continued run goes on in the wandb run, TensorBoard folder or CSV file that it began."""

import csv
import json
import re
import sys

import pytest
from pytorch_lightning.loggers import CSVLogger
from small_runs import StopAfter, StopError, train, train_stopped

from embedtrain.settings.component import Component
from embedtrain.training.loggers import continued

WANDB = "pytorch_lightning.loggers.WandbLogger"
CSV = "+logger._target_=pytorch_lightning.loggers.CSVLogger"


@pytest.fixture
def words(small_run, tmp_path):
    more = "data.batch_size=4 trainer.max_steps=4 trainer.checkpoint_every_n_steps=1 name=x"
    return [*small_run, *more.split(), f"output_root={tmp_path}"]


def steps_in(file):
    with file.open() as lines:
        return [int(row["step"]) for row in csv.DictReader(lines) if row["train/loss"]]


def test_csv_goes_on_in_its_file(words, tmp_path):
    train_stopped([*words, CSV], 2)
    (folder,) = (tmp_path / "x/lightning_logs").iterdir()
    assert steps_in(folder / "metrics.csv") == [0, 1, 2, 3]
    assert json.loads((tmp_path / "x/loggers.json").read_text()) == {"CSVLogger": 0}
    train([*words, CSV, "overwrite=true"])
    (folder,) = (tmp_path / "x/lightning_logs").iterdir()
    assert steps_in(folder / "metrics.csv") == [0, 1, 2, 3]


def test_lines_survive_a_kill_before_the_file_is_back(words, tmp_path, monkeypatch):
    csv_words = [*words, CSV]
    with pytest.raises(StopError):
        train(csv_words, StopAfter(2))
    file = tmp_path / "x/lightning_logs/version_0/metrics.csv"
    file.rename(file.with_name(".metrics.csv.kept"))
    train(csv_words)
    assert steps_in(file) == [0, 1, 2, 3]
    assert {path.name for path in file.parent.iterdir()} == {"metrics.csv", "hparams.yaml"}


def test_wandb_goes_on_in_its_run_without_a_network(words, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")  # the logger sets it to the same; undone after the test
    train_stopped([*words, "logger=wandb"], 2)
    folders = sorted(path.name for path in (tmp_path / "x/wandb").glob("offline-run-*"))
    ids = {re.fullmatch(r"offline-run-\d+_\d+-(\w+)", name)[1] for name in folders}
    assert len(ids) == 1, folders
    assert json.loads((tmp_path / "x/loggers.json").read_text()) == {"WandbLogger": ids.pop()}
    assert wandb.run is None, "it would take the metrics of the next run in this process"


def test_wandb_is_told_to_go_on_and_offline(words, tmp_path, monkeypatch):
    told = []

    class Run:
        id, config = "abc123", {}

        def finish(self, exit_code):
            told.append(exit_code)

        def __getattr__(self, name):
            return lambda *args, **kwargs: None

    class Wandb:
        run = None

        def init(**settings):
            told.append(settings)
            Wandb.run = Run()
            return Wandb.run

    import wandb.sdk.lib
    import wandb.wandb_run  # noqa: F401

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(StopError):
        train([*words, "logger=wandb"], StopAfter(2))
    Wandb.run = None
    train([*words, "logger=wandb"])
    first, failed, second, done = told
    assert (first["id"], second["id"]) == (None, "abc123")
    assert first["resume"] == second["resume"] == "allow"
    assert (first["name"], first["project"]) == ("x", "embedtrain")
    assert (failed, done) == (1, 0)


def test_a_version_of_ones_own_and_another_logger_win(tmp_path, caplog):
    (tmp_path / "loggers.json").write_text('{"WandbLogger": "abc"}')
    assert continued(Component(WANDB, {"offline": True}), tmp_path).settings["version"] == "abc"
    for own in ({"id": "mine"}, {"version": "mine"}):
        assert continued(Component(WANDB, own), tmp_path) == Component(WANDB, own)
    other = Component("pytorch_lightning.loggers.CSVLogger")
    assert continued(other, tmp_path) == other
    (tmp_path / "loggers.json").write_text('{"Wan')
    assert continued(Component(WANDB), tmp_path) == Component(WANDB)
    assert "does not go on where it was" in caplog.text


def test_a_csv_logger_without_a_file_starts_one(tmp_path):
    from embedtrain.training.loggers import keep_lines

    keep_lines(CSVLogger(tmp_path))
    assert list(tmp_path.iterdir()) == []
