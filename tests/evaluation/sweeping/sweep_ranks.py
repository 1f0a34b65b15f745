"""One of several ranks of a sweep over a local data root, in one folder."""

from pathlib import Path

from processes import joined, module_at
from tasks import swept

from embedtrain.evaluation.sweeping.sweep import IncompleteError
from embedtrain.types import Cell

CELLS = (Cell(1, 4), Cell(1, 16, "int8"), Cell(3, 4, "binary"), Cell(3, 16))


def fake_encoder():
    return module_at(Path(__file__).parents[1] / "conftest.py").FakeEncoder()


def main(rank, root, folder, names):
    """How many texts this rank encoded, and its scores or the error."""
    with joined():
        encoder = fake_encoder()
        try:
            scores = swept(encoder, root, CELLS, folder / "out", names=names)
        except IncompleteError as error:
            scores = [str(error)]
        return len(encoder.texts), scores
