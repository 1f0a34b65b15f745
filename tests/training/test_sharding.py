"""Weights spread over two ranks: the weights, metrics and checkpoints of one process."""

import datetime
from contextlib import closing
from pathlib import Path

import pytest
import torch
from processes import Processes, as_torchrun, finish, free_port
from safetensors.torch import load_file
from small_runs import lines_of, without

from embedtrain.settings.commands import TrainerSettings
from embedtrain.training.checkpoints import HashedCheckpointIO
from embedtrain.training.sharding import Sharded
from embedtrain.types import InputError

SCRIPT = Path(__file__).with_name("sharded_ranks.py")
CASES = ("whole", "chunks", "layers", "lora")
TOLERANCE = 1e-10  # float64


@pytest.mark.parametrize(("rank", "copied"), [(0, True), (1, False)])
def test_whole_weights_reach_the_host_of_the_first_rank_alone(rank, copied, monkeypatch):
    module, copies = torch.nn.Linear(2, 2), []
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    strategy = Sharded(2, "gloo", datetime.timedelta(minutes=1))
    strategy.model = module
    monkeypatch.setattr(Sharded, "global_rank", rank)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(self) or self)
    weights, state = strategy.lightning_module_state_dict(), strategy.optimizer_state(optimizer)
    assert bool(copies) is bool(weights) is bool(state) is copied


def test_a_checkpoint_is_mapped_not_read(tmp_path, monkeypatch):
    mapped, load = [], torch.load
    monkeypatch.setattr(
        torch, "load", lambda *args, **given: mapped.append(given["mmap"]) or load(*args, **given)
    )
    HashedCheckpointIO().save_checkpoint({"weight": torch.arange(5)}, tmp_path / "x.ckpt")
    found = HashedCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")
    assert mapped == [True]
    (tmp_path / "x.ckpt").unlink()
    assert found["weight"].tolist() == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def words(small_run):
    more = """trainer.accelerator=cpu trainer.checkpoint_every_n_steps=1 trainer.gradient_clip_val=0.5
        loss.learn_temperature=true trainer.max_steps=3 data.validation_rows=6 evaluation.tasks=[]"""
    return [*without(small_run, "plan.pairs"), *more.split()]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory, words):
    """Runs on one rank (1/), on two (2/), and what the others ended of these (moved/from_1, moved/from_2)."""
    folder, port = tmp_path_factory.mktemp("sharded"), free_port()
    processes = Processes(folder)
    with closing(processes):
        given = [(rank, 2, as_torchrun(rank, 2, port)) for rank in range(2)] + [(0, 1, {})]
        finish(
            *(
                processes.call(SCRIPT, "main", rank, world, folder, words, log=f"log{world}{rank}", **more)
                for rank, world, more in given
            )
        )
    return folder


def checkpoint(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def flat(node, name=""):
    """Every tensor and number of a nested state under its path."""
    if isinstance(node, dict):
        return {path: v for key, value in node.items() for path, v in flat(value, f"{name}/{key}").items()}
    if isinstance(node, list):
        return flat(dict(enumerate(node)), name)
    return {name: node}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor | float):
            torch.testing.assert_close(found[name], value, rtol=0, atol=TOLERANCE, msg=name)
        else:
            assert found[name] == value, name


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_that_share_the_weights_train_what_one_process_trains(sharded, case):
    one, two = checkpoint(sharded / "1" / case), checkpoint(sharded / "2" / case)
    assert_close(two["state_dict"], one["state_dict"])
    assert_close(flat(two["optimizer_states"]), flat(one["optimizer_states"]))
    assert len(lines_of(sharded / "1" / case)) >= 2
    for found, expected in zip(lines_of(sharded / "2" / case), lines_of(sharded / "1" / case), strict=True):
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_published_model_is_whole(sharded, case):
    one, two = (load_file(sharded / ranks / case / "model/model.safetensors") for ranks in "12")
    assert_close(two, one)


@pytest.mark.parametrize(("began", "ended"), [(2, 1), (1, 2)])
def test_another_number_of_ranks_ends_what_one_began(sharded, began, ended):
    moved, whole = checkpoint(sharded / f"moved/from_{began}"), checkpoint(sharded / "1/chunks")
    log = (sharded / f"log{ended}0").read_text()
    assert log.count("resuming at step 1") == 1
    assert moved["global_step"] == whole["global_step"] == 3
    assert_close(moved["state_dict"], whole["state_dict"])
    assert_close(flat(moved["optimizer_states"]), flat(whole["optimizer_states"]))
    for found, expected in zip(
        lines_of(sharded / f"moved/from_{began}"), lines_of(sharded / "1/chunks"), strict=True
    ):
        assert found == pytest.approx(expected, abs=1e-9)


def test_a_scaler_of_float16_is_refused(tmp_path):
    with pytest.raises(InputError, match="shard cannot be used with precision=16-mixed"):
        TrainerSettings(accelerator="cpu", devices=2, precision="16-mixed", shard=True)
