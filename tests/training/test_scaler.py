"""Float16: the scale of the loss is state of a run, kept in checkpoints and continued with.

Lightning trains bf16-mixed, without a scale, where 16-mixed is asked for on a CPU. torch itself has autocast
to float16 and a scaler there, so the plugin that Lightning makes on a GPU is put in its place.
"""

from itertools import pairwise

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from small_runs import StopAfter, StopError, assert_same_run, compose

from embedtrain.run.publish import publish
from embedtrain.run.run import Run

STEPS, TOO_LARGE = 8, 2.0**40  # float16 overflows: the first steps are left out, each halves the scale


@pytest.fixture
def words(small_run, tmp_path):
    more = "trainer.accelerator=cpu trainer.checkpoint_every_n_steps=1 trainer.accumulate_grad_batches=2"
    return [*small_run, *more.split(), f"trainer.max_steps={STEPS}", f"output_root={tmp_path}"]


def train(words, *callbacks):
    run = Run(compose(words))
    scaler = torch.amp.GradScaler("cpu", init_scale=TOO_LARGE, backoff_factor=2.0**-12, growth_interval=2)
    run.stage.trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
    run.stage.trainer.callbacks.extend(callbacks)
    try:
        run.fit()
        publish(run)
    finally:
        run.folder.release()
    return scaler


def saved(folder, step):
    return torch.load(folder / f"checkpoints/step_{step:09d}.ckpt", weights_only=True)["MixedPrecision"]


def test_the_scale_is_kept_and_continued_with(words, tmp_path):
    words = [*words, "trainer.save_total_limit=9"]
    scaler = train([*words, "name=whole"])
    scales = [saved(tmp_path / "whole", step)["scale"] for step in range(1, STEPS + 1)]
    assert scales[0] < TOO_LARGE, "a step was left out"
    assert any(one < two for one, two in pairwise(scales)), "and the scale grew again"
    assert scaler.get_scale() == scales[-1]
    for stop in (1, 4):  # after a step that was left out; with a scale that grew
        name = f"stopped_{stop}"
        with pytest.raises(StopError):
            train([*words, f"name={name}"], StopAfter(stop))
        assert saved(tmp_path / name, stop) == saved(tmp_path / "whole", stop)
        assert train([*words, f"name={name}"]).state_dict() == scaler.state_dict()
        assert_same_run(tmp_path / name, tmp_path / "whole")
