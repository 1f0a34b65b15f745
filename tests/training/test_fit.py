"""Whole steps under Lightning: clipping, accumulation, learned temperature, queue, ranks, scaler."""

from contextlib import nullcontext

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision

WEIGHTS = 1e-9  # AdamW divides differences of 1e-16 by the roots of small second moments


def assert_equal_fits(found, expected):
    for (weights, queue), (other, queued) in zip(found, expected, strict=True):
        assert weights.keys() == other.keys()
        for name, value in other.items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=WEIGHTS, msg=name)
        for mine, theirs in zip(queue, queued, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=WEIGHTS)


def test_chunks_and_ranks_train_the_same_weights(fits, two_ranks):
    plain, cached, _ = two_ranks.FITS
    expected = fits[1][0][plain]
    for found in (fits[1][0][cached], *(rank[case] for rank in fits[2] for case in (plain, cached))):
        assert_equal_fits([found], [expected])


def test_everything_trained(fits, two_ranks):
    weights, queue = fits[1][0][two_ranks.FITS[0]]
    fresh = two_ranks.TinyEncoder().state_dict()
    moved = [name for name, value in fresh.items() if not torch.equal(weights[f"encoder.{name}"], value)]
    assert moved == list(fresh)
    (scale,) = [value for name, value in weights.items() if name.endswith("log_inverse")]
    assert abs(scale.exp() - 20) > 1e-3
    assert queue[0].shape == (3, 7, 8)


def test_ranks_with_losses_of_their_own_agree_on_weights_and_queue(fits, two_ranks):
    case = two_ranks.FITS[2]
    assert_equal_fits([fits[2][1][case]], [fits[2][0][case]])
    assert not torch.equal(
        fits[2][0][case][0]["encoder.table.weight"], fits[1][0][case][0]["encoder.table.weight"]
    )


def test_metrics_are_the_true_loss_and_those_of_each_dataset(fit_metrics):
    """The logged loss is no surrogate: the same with and without chunks, on any number of ranks."""
    expected = fit_metrics(1, 0)
    assert [row["step"] for row in expected] == [0, 1]
    names = {"train/one/loss", "train/two/loss", "train/one/accuracy", "train/one/removed_margin_pos"}
    assert names < expected[0].keys()
    assert expected[0]["train/grad_norm"] > 0.1, "nothing was clipped"
    for world, number in ((1, 1), (2, 0), (2, 1)):
        found = fit_metrics(world, number)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.keys() == theirs.keys()
            for name in mine:
                assert mine[name] == pytest.approx(theirs[name], rel=1e-6, abs=1e-8), name


class Scaling(MixedPrecision):
    """Scales losses as 16-mixed does, in the precision of the weights, so that nothing is lost by it."""

    def __init__(self):
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**16))

    def forward_context(self):
        return nullcontext()


def test_a_loss_scaler_changes_nothing(fits, two_ranks, tmp_path):
    def scale(trainer):
        trainer.strategy.precision_plugin = Scaling()

    for number, case in enumerate(two_ranks.FITS[:2]):
        found = two_ranks.fit(case, 0, 1, tmp_path / str(number), scale)
        assert_equal_fits([found], [fits[1][0][case]])
