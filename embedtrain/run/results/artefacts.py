"""What others read of an evaluation: a leaderboard, and scores in the cards of models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.files.scores import main_scores, read_scores, read_tasks
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.cards.card import model_index
from embedtrain.model.folder.describe import parameter_count
from embedtrain.reporting.leaderboard import leaderboard, write_leaderboard
from embedtrain.types import Score, SubModel

if TYPE_CHECKING:
    import pandas as pd

TASKS, MODELS = "tasks.json", "models.json"  # beside scores.jsonl


def show_leaderboard(folder: Path, scores: Sequence[Score], encoder: Encoder) -> None:
    """Write leaderboard.csv and leaderboard.md of one model's scores."""
    parameters = {layer: parameter_count(encoder, layer) for layer in {score.layer for score in scores}}
    write_leaderboard(folder, leaderboard(scores, read_tasks(folder / TASKS), parameters))


def index_of(folder: Path, name: str, sub: SubModel, step: int | None = None) -> str:
    """The `model-index` of a sub-model from the scores in a folder; "" where there are none of it.

    Args:
        folder: with scores.jsonl.
        name: of the model.
        sub: what was saved; its float32 scores count.
        step: of the weights; None for the last one that was measured, the untouched backbone excepted.
    """
    scores = read_scores(folder / "scores.jsonl")
    if step is None:
        step = max((score.step for score in scores), default=0)
        if step == 0:
            return ""
    own = [score for score in scores if (score.step, score.dtype) == (step, "float32")]
    own = [score for score in own if SubModel(score.layer, score.dim) == sub]
    return model_index(name, own, read_tasks(folder / TASKS))


def score_frame(scores: Sequence[Score]) -> pd.DataFrame:
    """Main scores, a row for each (step, task, split, layer, dtype), a column for each dim."""
    import pandas as pd

    frame = pd.DataFrame([score._asdict() for score in main_scores(list(scores))])
    if frame.empty:
        return frame
    rows = ["step", "task", "split", "metric", "dtype", "layer"]
    return frame.pivot_table(index=rows, columns="dim", values="value")
