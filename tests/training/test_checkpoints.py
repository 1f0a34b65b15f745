import errno

import pytest
import torch

from embedtrain.training.checkpoints import HashedCheckpointIO, write_atomically
from embedtrain.types import InputError


def fail_with(error, *, after):
    """A writer that writes some bytes and then fails."""

    def write(file):
        file.write(b"x" * after)
        raise error

    return write


def test_a_full_disk_keeps_the_earlier_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "last.ckpt"
    HashedCheckpointIO().save_checkpoint({"step": 1}, path)
    with pytest.raises(InputError, match=r"no space left while saving .*last\.ckpt.*same command again"):
        write_atomically(path, fail_with(OSError(errno.ENOSPC, "No space left on device"), after=100))
    assert torch.load(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_torch_wraps_a_full_disk_and_it_is_still_recognised(tmp_path, monkeypatch):
    class Full:
        """What a file on a full disk does."""

        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.file, name)

    def save_to_full_disk(file):
        torch.save({"weights": torch.ones(100_000)}, Full(file))

    with pytest.raises(InputError, match="no space left"):
        write_atomically(tmp_path / "last.ckpt", save_to_full_disk)
    assert list(tmp_path.iterdir()) == []


def test_other_failures_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="something else"):
        write_atomically(tmp_path / "last.ckpt", fail_with(RuntimeError("something else"), after=1))
    assert list(tmp_path.iterdir()) == []
