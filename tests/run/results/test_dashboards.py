"""What dashboards are given, read back from their own files, without a network and after a resume."""

import json

import pytest
from small_runs import StopAfter, StopError, compose
from wandb_records import Offline

from embedtrain.files.measured.metrics import read_metrics
from embedtrain.files.measured.verdict import read_verdict
from embedtrain.files.scores import main_scores, read_scores
from embedtrain.run import train as training

wandb = pytest.importorskip("wandb")


@pytest.fixture(scope="module")
def stopped_once(small_run, small_data, tmp_path_factory):
    """The folder of a run with logger=wandb that was stopped after two steps, and run again to its end."""
    root = tmp_path_factory.mktemp("boards")
    words = [*small_run, "name=x", f"output_root={root}", "logger=wandb", "trainer.max_steps=4"]
    words += ["trainer.checkpoint_every_n_steps=1", "evaluation.tasks=[local]"]
    words += [f"evaluation.data_root={small_data}", "loss.temperature=5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_MODE", "offline")  # the logger sets it to the same; undone after the test
        patch.delenv("WANDB_API_KEY", raising=False)
        with pytest.raises(StopError):
            _train(words, StopAfter(2))
        wandb.teardown()  # a resumed run is another process; one that serves both may mix two runs of one id
        _train(words)
        wandb.teardown()
    return root / "x"


def _train(words, *callbacks):
    real = training.Run

    def run(*given):
        made = real(*given)
        made.stage.trainer.callbacks.extend(callbacks)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Run", run)
        return training.train(compose(words))


@pytest.fixture(scope="module")
def read_back(stopped_once):
    return Offline(sorted((stopped_once / "wandb").glob("offline-run-*")))


def test_wandb_has_one_run_with_its_config_and_every_step(stopped_once, read_back):
    assert len(list((stopped_once / "wandb").glob("offline-run-*"))) == 2
    assert len(read_back.ids) == 1
    assert read_back.config["loss"]["temperature"] == 5
    assert read_back.config["trainer"]["max_steps"] == 4
    losses = [line["train/loss"] for line in read_back.history if "train/loss" in line]
    logged = [line.values["train/loss"] for line in read_metrics(stopped_once / "metrics.jsonl")]
    assert losses == pytest.approx(logged)
    assert any("after/mean" in line for line in read_back.history)


def media(folder, path):
    """The one file of that path in the folders of wandb."""
    (file,) = (folder / "wandb").glob(f"offline-run-*/files/{path}")
    return file


def test_wandb_has_the_heat_map_as_image_and_as_table(stopped_once, read_back):
    shown = next(line for line in read_back.history if "heat_map.path" in line)
    image, table = (media(stopped_once, shown[f"{key}.path"]) for key in ("heat_map", "cells"))
    assert image.read_bytes() == (stopped_once / "heat_map.png").read_bytes()
    content = json.loads(table.read_text("utf-8"))
    scores = main_scores(read_scores(stopped_once / "scores.jsonl"))
    rows = {tuple(row) for row in content["data"]}
    assert len(rows) == len(scores)
    assert {(row[0], row[4], row[5], row[7]) for row in rows} == {
        (score.step, score.layer, score.dim, score.value) for score in scores
    }


def test_wandb_has_the_verdict_in_its_summary(stopped_once, read_back):
    verdict = read_verdict(stopped_once)
    assert read_back.summary["verdict"] == "\n".join(verdict.lines)
    assert read_back.summary["cut/layer"] == verdict.cut.layer
    assert read_back.summary["verdict/find"] == verdict.changes[0].verdict
    assert read_back.summary["finding/temperature"] in {item.text for item in verdict.findings}


def test_wandb_has_the_model_with_its_contract(stopped_once, read_back):
    (artifact,) = [item for item in read_back.artifacts if item.type == "model"]
    assert artifact.name == "model-x"
    contract = json.loads((stopped_once / "model/embedtrain.json").read_text("utf-8"))
    assert json.loads(artifact.metadata) == contract
    files = {entry.path for entry in artifact.manifest.contents}
    model = stopped_once / "model"
    assert files == {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
