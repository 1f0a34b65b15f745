"""final_weights=best: the weights that validated best are measured and published, also after a stop."""

import pytest
import torch
from safetensors.torch import load_file
from small_runs import compose, train_stopped

from embedtrain.files.scores import read_scores
from embedtrain.run.publish import evaluate_after, publish
from embedtrain.run.run import Run

VALUES = {2: 0.3, 4: 0.9, 6: 0.5}  # of validation, by step


@pytest.fixture
def words(small_run, small_data, tmp_path):
    more = """trainer.max_steps=6 trainer.val_check_interval=2 trainer.checkpoint_every_n_steps=1
        trainer.save_total_limit=9 evaluation.tasks=[find] evaluation.before=false final_weights=best"""
    places = [f"evaluation.data_root={small_data}", f"data.validation={small_data}/validation.jsonl"]
    return [*small_run, *more.split(), *places, f"output_root={tmp_path}"]


@pytest.fixture(autouse=True)
def values(monkeypatch):
    """Let the model validate best in the middle of the run."""
    taken = []

    def scores(texts, links, subs):
        taken.append(2 * len(taken) + 2)
        return "ndcg@10", {sub: torch.tensor(VALUES[taken[-1]]) for sub in subs}

    monkeypatch.setattr("embedtrain.training.steps.contrastive.step.sub_model_scores", scores)
    return taken


def backbone_of(checkpoint):
    """The weights of the backbone in a checkpoint, under their names in a model's folder."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    start = "encoder.backbone.model."
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}


def same(one, other):
    assert one.keys() & other.keys()
    return all(torch.equal(one[name], other[name]) for name in one.keys() & other.keys())


def test_the_best_weights_are_measured_and_published(words, tmp_path):
    run = Run(compose([*words, "name=run"]))
    run.fit()
    evaluate_after(run, publish(run))
    published, kept = load_file(tmp_path / "run/model/model.safetensors"), tmp_path / "run/checkpoints"
    assert torch.load(kept / "best.ckpt", weights_only=True)["global_step"] == 4
    assert len(published.keys() & backbone_of(kept / "best.ckpt").keys()) > 50
    assert same(published, backbone_of(kept / "best.ckpt"))
    assert same(published, backbone_of(kept / "step_000000004.ckpt"))
    assert not same(published, backbone_of(kept / "last.ckpt"))
    scores = read_scores(tmp_path / "run/scores.jsonl")
    assert scores
    assert {score.step for score in scores} == {4}


@pytest.mark.parametrize("stop", [3, 5])
def test_a_run_that_was_stopped_knows_what_was_best(words, tmp_path, values, stop):
    """Stopped before and after its best step; what follows is better than nothing, not than the best."""
    run = train_stopped([*words, "name=run"], stop)
    assert values == [2, 4, 6]
    assert run.final_step == 4
    kept = tmp_path / "run/checkpoints"
    published = load_file(tmp_path / "run/model/model.safetensors")
    assert same(published, backbone_of(kept / "step_000000004.ckpt"))
    assert not same(published, backbone_of(kept / "last.ckpt"))
