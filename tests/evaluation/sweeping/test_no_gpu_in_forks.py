"""Scoring processes are forked, and a GPU that their parent uses is none to them."""

import pytest
import torch

from embedtrain.evaluation import mteb_private
from embedtrain.evaluation.sweeping import scoring
from embedtrain.types import Cell

CELLS = [Cell(layer, dim) for layer in (1, 2) for dim in (8, 16)]


@pytest.fixture
def gpu(monkeypatch):
    """A machine that says it has a GPU, on which using it is an error as in a forked process."""
    copied = torch.Tensor.to

    def to(self, *args, **kwargs):
        assert "cuda" not in str([*args, *kwargs.values()]), "Cannot re-initialize CUDA in forked subprocess"
        return copied(self, *args, **kwargs)

    def asked(*_):
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", asked)
    monkeypatch.setattr(scoring, "FORKS_PAY", 0.0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_compares_by_itself_is_scored(gpu, make_encoder, tmp_path, workers):
    from embedtrain.evaluation.sweeping.sweep import sweep

    task = next(task for task in mteb_private.mock_tasks() if task.metadata.type == "Summarization")
    scores = sweep(
        make_encoder(), [task], CELLS, run="x", step=0, revision="0" * 40, folder=tmp_path, workers=workers
    )
    assert {score.cell for score in scores} == set(CELLS)


def test_a_process_has_no_gpu(gpu):
    found = [result for _, result in scoring.forked(lambda _: torch.cuda.is_available(), [0, 1], 2)]
    assert found == [False, False]
    assert torch.cuda.is_available()


@pytest.mark.parametrize("used", [True, False])
def test_random_states_open_no_context_on_other_gpus(used, monkeypatch):
    asked = []
    fork = torch.random.fork_rng
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: asked.append(devices) or fork(devices=[]))
    with mteb_private.same_random_state():
        pass
    assert asked == [[3] if used else []]
