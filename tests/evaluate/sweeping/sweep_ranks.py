"""One of several ranks of a sweep over a local data root, in one folder."""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[2] / "shared"))
from rank_group import joined, module_at

from embedtrain.evaluate.catalogue.tasks import local_tasks
from embedtrain.evaluate.sweeping.sweep import IncompleteError, sweep
from embedtrain.types import Cell

CELLS = (Cell(1, 4), Cell(1, 16, "int8"), Cell(3, 4, "binary"), Cell(3, 16))
SETTINGS = {"run": "mine", "step": 0, "revision": "weights0"}


def fake_encoder():
    return module_at(Path(__file__).parents[1] / "conftest.py").FakeEncoder()


def main(rank, world, root, folder, names):
    with joined(rank, world, folder / "rendezvous"):
        encoder = fake_encoder()
        try:
            scores = sweep(encoder, local_tasks(root, names), CELLS, folder=folder / "out", **SETTINGS)
        except IncompleteError as error:
            scores = [str(error)]
        torch.save((len(encoder.texts), scores), folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
