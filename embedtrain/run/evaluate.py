"""Scores of a saved model at every cell asked for, with what is written beside them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from embedtrain.devices import device_of, placed
from embedtrain.evaluation.sweeping.funnel import Measured, funnel_of
from embedtrain.evaluation.sweeping.sweep import IncompleteError
from embedtrain.files.locks import only_thread, taken
from embedtrain.files.run_record import read_record
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.cards.card import PICTURE
from embedtrain.ranks import rank
from embedtrain.reporting.figures import save_heat_map
from embedtrain.run.cost import check_folder, keeping_of, show_plan
from embedtrain.run.measure import grid, measure, measure_speed
from embedtrain.run.models import name_of, source_of
from embedtrain.run.results.artefacts import show_leaderboard
from embedtrain.settings.commands import EvaluateSettings
from embedtrain.types import InputError, Score, SubModel

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


class Evaluation(NamedTuple):
    """What an evaluation measured."""

    folder: Path  # scores.jsonl, mteb/, leaderboard.csv, heat_map.png
    scores: list[Score]
    trained: Sequence[SubModel]  # the sub-models that the model was trained at
    failed: IncompleteError | None  # tasks that could not be scored


def evaluate_encoder(
    settings: EvaluateSettings, encoder: Encoder, name: str, tasks: Sequence[AbsTask] | None = None
) -> Evaluation | None:
    """Measure an encoder; None where only the cost was asked for.

    Args:
        settings: of the command.
        encoder: what is measured.
        name: folder or hub name of the model, which names its lines, and their folder if `output` is None.
        tasks: what it is measured on; None for those that the settings name.

    Raises:
        InputError: for what cannot be measured.
    """
    run = name_of(name)
    trained = encoder.trained or (SubModel(encoder.num_layers, encoder.width),)
    folder = Path(settings.output or Path(settings.output_root) / f"evaluation-{run}")
    cells = grid(settings.layers, settings.dims, settings.dtypes, trained)
    measured: list[Measured] = [*cells, *(funnel_of(row) for row in settings.funnels)]
    _check_output(folder)
    keeping, device = keeping_of(settings, folder), device_of(settings.device)
    if settings.plan_only:
        with placed(encoder, device):
            show_plan(encoder, settings, cells, keeping, tasks)
        return None
    failed: IncompleteError | None = None
    only, lock = only_thread(f"the evaluation {folder}"), taken(folder) if rank() == 0 else nullcontext()
    with only, lock, placed(encoder, device):
        try:
            scores = measure(
                encoder, settings, measured, run=run, step=0, folder=folder, tasks=tasks, keeping=keeping,
                source=source_of(name),
            )  # fmt: skip
        except IncompleteError as error:
            scores, failed = list(error.scores), error
        if rank() == 0 and scores:
            measure_speed(encoder, measured, run=run, folder=folder)
            save_heat_map(folder / PICTURE, [], scores, trained=trained)
            show_leaderboard(folder, scores, encoder)
    return Evaluation(folder, scores, trained, failed)


def _check_output(folder: Path) -> None:
    """Check that scores can be written there, and that nothing of somebody is replaced.

    Raises:
        InputError: saying what is in the way.
    """
    check_folder("output", folder)
    if read_record(folder / "config.yaml") is not None:
        raise InputError(
            f"output={folder} is the folder of a run, whose scores.jsonl has what it measured: give another "
            f"folder, e.g. output={folder.with_name(f'evaluation-{folder.name}')}"
        )
    if not (folder / "scores.jsonl").is_file():
        for name in (PICTURE, "leaderboard.csv", "leaderboard.md"):
            if (folder / name).exists():
                raise InputError(
                    f"output={folder} holds {name} and no scores.jsonl, so no evaluation wrote it, and it is "
                    "left alone. Say another folder"
                )
