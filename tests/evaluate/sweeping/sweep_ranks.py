"""One of several ranks of a sweep over a local data root, in one folder."""

import importlib.util
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from embedtrain.evaluate.catalogue.tasks import local_tasks
from embedtrain.evaluate.sweeping.sweep import IncompleteError, sweep
from embedtrain.types import Cell

CELLS = (Cell(1, 4), Cell(1, 16, "int8"), Cell(3, 4, "binary"), Cell(3, 16))
SETTINGS = {"run": "mine", "step": 0, "revision": "weights0"}


def fake_encoder():
    spec = importlib.util.spec_from_file_location("fakes", Path(__file__).parents[1] / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FakeEncoder()


def main(rank, world, root, folder, names):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    encoder = fake_encoder()
    try:
        scores = sweep(encoder, local_tasks(root, names), CELLS, folder=folder / "out", **SETTINGS)
    except IncompleteError as error:
        scores = [str(error)]
    torch.save((len(encoder.texts), scores), folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
