import logging
import os

import pytest
import torch
from small_runs import flip

from embedtrain.files.checkpoint_folder import CheckpointFolder
from embedtrain.training.checkpoints import HashedCheckpointIO
from embedtrain.types import InputError


def save(folder, *steps):
    for step in steps:
        HashedCheckpointIO().save_checkpoint({"step": step, "weights": torch.ones(50)}, folder.at(step))
        folder.keep(folder.at(step))


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints")


def test_the_newest_are_kept_and_last_is_the_newest(folder):
    save(folder, 5, 10, 999_999_999, 1_000_000_000)  # one more digit comes later all the same
    assert names(folder) == ["last.ckpt", "step_1000000000.ckpt", "step_999999999.ckpt"]
    assert folder.newest_first() == [folder.at(1_000_000_000), folder.at(999_999_999)]
    assert torch.load(folder.last, weights_only=True)["step"] == 1_000_000_000
    assert not os.path.isabs(os.readlink(folder.last)), "a run folder can be moved"


def test_nothing_to_continue_from(folder):
    assert folder.newest_whole(repair=True) is None
    folder.path.mkdir()
    assert folder.newest_whole(repair=True) is None


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(folder, caplog):
    save(folder, 5, 10)
    flip(folder.at(10), 900)
    with caplog.at_level(logging.WARNING):
        assert folder.newest_whole(repair=True) == folder.at(5)
    (message,) = caplog.messages
    assert "step_000000010.ckpt is not what was written: its SHA-256 differs" in message
    assert "continuing from step_000000005.ckpt, which is whole" in message
    assert names(folder) == ["last.ckpt", "step_000000005.ckpt", "step_000000010.ckpt.damaged"]
    assert torch.load(folder.last, weights_only=True)["step"] == 5


def test_other_processes_find_the_same_and_change_nothing(folder, caplog):
    save(folder, 5, 10)
    flip(folder.at(10), 900)
    before = names(folder)
    assert folder.newest_whole(repair=False) == folder.at(5)
    assert (names(folder), caplog.messages) == (before, [])


def test_no_whole_checkpoint_says_what_to_do(folder):
    save(folder, 5, 10)
    flip(folder.at(5), 900)
    folder.at(10).write_bytes(folder.at(10).read_bytes()[:100])
    with pytest.raises(InputError, match=r"no checkpoint is whole: .*step_000000010\.ckpt .*cut short.*"
                       r"step_000000005\.ckpt .*Put back a copy.*overwrite=true"):  # fmt: skip
        folder.newest_whole(repair=True)
    with pytest.raises(InputError, match="no checkpoint is whole"):  # nor is it forgotten
        folder.newest_whole(repair=True)


def test_a_last_that_was_copied_alone_is_continued_from(folder):
    save(folder, 5)
    content = folder.last.read_bytes()
    folder.at(5).unlink()
    folder.last.unlink()
    folder.last.write_bytes(content)
    assert folder.newest_whole(repair=True) == folder.last
    save(folder, 7)
    assert folder.newest_whole(repair=True) == folder.at(7)
    assert names(folder) == ["last.ckpt", "step_000000007.ckpt"]


def test_a_save_that_was_killed_leaves_nothing_for_long(folder):
    save(folder, 5)
    (folder.path / ".step_000000010.ckpt.tmp").write_bytes(b"half")
    assert folder.newest_whole(repair=True) == folder.at(5)
    assert names(folder) == ["last.ckpt", "step_000000005.ckpt"]


def test_a_kill_before_the_link_is_no_loss(folder):
    save(folder, 5)
    HashedCheckpointIO().save_checkpoint({"step": 10}, folder.at(10))
    assert folder.newest_whole(repair=True) == folder.at(10)


def test_keep_last_is_at_least_one(tmp_path):
    with pytest.raises(InputError, match="save_total_limit must be at least 1, got 0"):
        CheckpointFolder(tmp_path, 0)
