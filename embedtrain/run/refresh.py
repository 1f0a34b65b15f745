"""Mining inside a run: the model in training and the rows of its data, given to what mines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from embedtrain.data.module import DataModule
from embedtrain.mining.pipeline import check_size
from embedtrain.mining.refresh import Refresh, RefreshNegatives, Revised, texts_of
from embedtrain.model.encoder import Encoder
from embedtrain.types import InputError, Role, SubModel


def mine_while_training(
    refresh: Refresh, data: DataModule, trainer: pl.Trainer, encoder: Encoder, folder: Path, seed: int
) -> None:
    """Let a run mine: a callback of the trainer finds negatives, the data's batches carry them.

    Raises:
        InputError: when the rows bring a teacher's scores, which new negatives would not have; when there are
            too few documents, or batches are made too far ahead.
    """
    if "teacher" in data.offers:
        raise InputError(
            "mining=refresh exchanges negatives, and the rows have teacher_scores for those they bring: use "
            "mining=none, or rows without teacher_scores"
        )
    texts = texts_of(data.training_rows())
    check_size(texts.problems, refresh.selection)
    whole = SubModel(encoder.num_layers, encoder.width)

    def encode(given: Sequence[str], role: Role, prompt: str | None) -> NDArray[np.float32]:
        found = encoder.encode(given, (whole.layer,), role, prompt=prompt)
        vectors: NDArray[np.float32] = found.at(whole).float().numpy()
        return vectors

    mined, accumulate = folder / "mined", trainer.accumulate_grad_batches
    data.revise = Revised(mined, refresh, texts, accumulate=accumulate, ahead=data.ahead)
    # First of all callbacks: what is mined at a step is on disk before a checkpoint of that step can be.
    trainer.callbacks.insert(0, RefreshNegatives(refresh, texts, encode, mined, seed=seed))  # type: ignore[attr-defined]
