"""Golden values: what golden/README.md says of each case."""

import json
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "golden"


def golden(case):
    """(arrays as tensors, config) of a case."""
    with np.load(FOLDER / f"{case}.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return tensors, json.loads((FOLDER / f"{case}.json").read_text("utf-8"))["config"]
