"""A run of several stages: the same bits wherever it stops, one folder, mistakes found before it begins."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from processes import LIMIT, finish, send_signal
from safetensors.torch import load_file
from small_runs import (
    StopAfter,
    StopError,
    assert_close_weights,
    assert_equal_bits,
    command,
    compose,
    lines_of,
    train,
    weights,
)  # fmt: skip

from embedtrain.files.checkpoint_folder import StageFolder
from embedtrain.files.scores import main_scores, read_scores
from embedtrain.run.publish import evaluate_stage
from embedtrain.run.run import Run
from embedtrain.types import InputError

MASKED = "{name: masked, step: masked, plan: full, trainer: {max_steps: 3}}"
STAGES = f"stages=[{MASKED}, {{name: pairs, optim: {{lr: 1e-4}}}}]"
FIRST = "stages/1_masked"


@pytest.fixture
def words(small_run, tmp_path):
    more = """trainer.max_steps=4 trainer.checkpoint_every_n_steps=1 trainer.accelerator=cpu
        trainer.val_check_interval=2 data.validation_rows=8 loss.learn_temperature=true
        queue=documents queue.size=10"""
    return [*small_run, STAGES, f"output_root={tmp_path}", *more.split()]


def last_weights(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def test_stopping_anywhere_changes_nothing(words, tmp_path, monkeypatch):
    """In the first stage, just before and after it is known to be finished, and in the second stage."""
    train([*words, "name=whole"])
    given, finish_stage = [*words, "name=stopped"], StageFolder.finish

    def stops_before(*_):
        raise StopError

    def stops_after(*handed_on):
        finish_stage(*handed_on)
        raise StopError

    with pytest.raises(StopError):
        train(given, StopAfter(2))
    for stops in (stops_before, stops_after):
        monkeypatch.setattr(StageFolder, "finish", stops)
        with pytest.raises(StopError):
            train(given)
    monkeypatch.undo()
    with pytest.raises(StopError):
        train(given, StopAfter(2))
    train(given)
    mine, whole = tmp_path / "stopped", tmp_path / "whole"
    assert_equal_bits(weights(mine), weights(whole))
    assert_equal_bits(last_weights(mine / FIRST), last_weights(whole / FIRST))
    for name, steps in (("", 4), (FIRST, 3)):
        assert lines_of(mine / name) == lines_of(whole / name)
        assert [row["step"] for row in lines_of(whole / name) if "train/loss" in row] == list(range(steps))
    assert any("val/accuracy_L4_D32" in row for row in lines_of(whole / FIRST))
    assert any("val/ndcg_at_10_L4_D32" in row for row in lines_of(whole))


@pytest.mark.slow
def test_a_run_killed_at_20_moments_of_both_stages_ends_with_the_same_bits(processes, words, tmp_path):
    """Moments are drawn, in steps and seconds: while it starts, trains, saves, or hands over."""
    given = [*words, STAGES.replace("max_steps: 3", "max_steps: 30"), "trainer.max_steps=30"]
    finish(processes.command("train", [*given, "name=whole"]))
    folder, draw, seen = tmp_path / "killed", random.Random(16), []

    def steps():
        files = (folder / FIRST / "metrics.jsonl", folder / "metrics.jsonl")
        lines = [path.read_bytes().count(b'"train/loss"') if path.exists() else 0 for path in files]
        return lines[0] + lines[1]

    for number in range(20):
        process, wanted = processes.command("train", [*given, "name=killed"], "killed.log"), 3 * number
        while process.is_alive() and steps() < wanted:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.05)
        assert process.is_alive(), (tmp_path / "killed.log").read_text()[-3000:]
        assert send_signal(process, signal.SIGKILL) == -signal.SIGKILL
        seen.append(steps())
    assert min(seen) < 20 < 40 < max(seen), "both stages"
    finish(processes.command("train", [*given, "name=killed"]))
    assert_equal_bits(weights(folder), weights(tmp_path / "whole"))
    assert_equal_bits(last_weights(folder / FIRST), last_weights(tmp_path / "whole" / FIRST))
    for name in ("", FIRST):
        assert lines_of(folder / name) == lines_of(tmp_path / "whole" / name)


def test_a_stage_begins_with_the_weights_of_the_one_before(words, tmp_path):
    still = STAGES.replace("1e-4", "1e-30")  # a step that float32 does not hold
    train([*words, still, "name=still"])
    before = last_weights(tmp_path / "still" / FIRST)
    published = load_file(tmp_path / "still/model/model.safetensors")
    trained = [name for name in published if not name.startswith("pooler.")]
    for name in trained:
        assert torch.equal(published[name], before[f"encoder.backbone.model.{name}"]), name
    fresh = load_file(Path(words[0].partition("=")[2]) / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert not torch.equal(published[name], fresh[name])


def test_what_a_stage_hands_on_is_measured_and_changes_nothing(words, small_data, tmp_path, capsys):
    measured = ["evaluation.tasks=[find]", f"evaluation.data_root={small_data}", "plan.pairs=[[2,16],[4,32]]"]
    command("train", *words, *measured, "name=measured")
    shown = capsys.readouterr().out
    train([*words, measured[-1], "name=plain"])
    assert_equal_bits(weights(tmp_path / "measured"), weights(tmp_path / "plain"))
    scores = main_scores(read_scores(tmp_path / "measured/scores.jsonl"))
    assert {score.step for score in scores} == {0, 3, 7}
    cells = {(2, 16), (4, 32)}
    after = [score.value for score in scores if score.step == 3 and (score.layer, score.dim) in cells]
    assert f"mean of 2 after masked: {100 * sum(after) / 2:.1f}" in shown
    settings = compose([*words, *measured, "name=left-out", "evaluation.after_stages=false"])
    assert evaluate_stage(SimpleNamespace(settings=settings, final_step=3), "masked") is None


def test_two_ranks_run_both_stages_and_scores_are_those_of_the_whole_run(
    processes, words, calm, small_data, tmp_path
):
    """Started by torchrun, or the second one by Lightning, once for all stages."""
    given = [*words, f"backbone.path={calm}", "evaluation.tasks=[find]", f"evaluation.data_root={small_data}"]
    two = processes.ranks("train", [*given, "name=torchrun", "trainer.devices=2"])
    finish(*two, processes.command("train", [*given, "name=one"]))
    command = [sys.executable, "-m", "embedtrain.cli.train", *given, "name=lightning", "trainer.devices=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr[-3000:]
    for two in (tmp_path / "torchrun", tmp_path / "lightning"):
        assert_close_weights(two, tmp_path / "one")
        assert {score.step for score in read_scores(two / "scores.jsonl")} == {0, 3, 7}
        for stage in ("", FIRST):
            for mine, theirs in zip(lines_of(two / stage), lines_of(tmp_path / "one" / stage), strict=True):
                assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4)


def test_config_yaml_holds_the_settings_of_each_stage(words, tmp_path):
    run = Run(compose([*words, "name=shown"]))
    run.folder.release()
    config = yaml.safe_load((tmp_path / "shown/config.yaml").read_text("utf-8"))["config"]
    masked, pairs = config["stages"].values()
    assert list(config["stages"]) == ["1_masked", "2_pairs"]
    assert masked["step"] == {"_target_": "embedtrain.training.steps.masked.step.Masked", "share": 0.15}
    assert (masked["trainer"]["max_steps"], pairs["trainer"]["max_steps"]) == (3, 4)
    assert (masked["optim"]["lr"], pairs["optim"]["lr"]) == (1e-3, 1e-4)
    changed = [*words, STAGES.replace("max_steps: 3", "max_steps: 5"), "name=shown"]
    with pytest.raises(InputError, match=r"stages\.1_masked\.trainer\.max_steps: was 3, is 5"):
        Run(compose(changed))
    saved = STAGES.replace("max_steps: 3", "max_steps: 3, checkpoint_every_n_steps: 2")
    Run(compose([*words, saved, "name=shown"])).folder.release()


def test_a_mistake_of_a_later_stage_is_found_before_anything_is_written(words, tmp_path):
    wrong = f"stages=[{MASKED}, {{name: pairs, data: {{batch_size: 1000}}}}]"
    with pytest.raises(InputError, match=r"stage pairs: data\.batch_size=1000 is more than the 56"):
        Run(compose([*words, wrong, "name=wrong"]))
    assert not (tmp_path / "wrong").exists()
