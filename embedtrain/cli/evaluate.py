"""embedtrain-evaluate: mteb scores of a model at every (layer, dim, dtype) asked for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from embedtrain.cli.start import start
from embedtrain.settings.commands import EvaluateSettings

if TYPE_CHECKING:
    from pathlib import Path

    from embedtrain.types import Score, SubModel


def main() -> None:
    """Entry point of `embedtrain-evaluate`."""
    # Hydra takes `plan` for the group of training plans, which this command does not have.
    sys.argv[1:] = [re.sub(r"^plan=", "plan_only=", word) for word in sys.argv[1:]]
    start("evaluate")


def run(settings: EvaluateSettings) -> None:
    """Evaluate one model, print the table, write scores.jsonl and the heat map.

    Started by torchrun, all processes encode and score; the first one writes.

    Raises:
        InputError: what cannot be evaluated; for tasks that failed once all else is scored and shown.
    """
    if settings.prefetch:
        from embedtrain.cli.prefetch import prefetch_all

        prefetch_all(settings)
        return
    if settings.offline:
        from embedtrain.cli.offline import go_offline

        go_offline()

    from embedtrain.ranks import process_group

    started_together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    with process_group() if started_together else nullcontext():
        _evaluate(settings)


def _evaluate(settings: EvaluateSettings) -> None:
    from pathlib import Path

    from embedtrain.cli.offline import offline_tasks
    from embedtrain.cli.prefetch import prefetched_model
    from embedtrain.evaluate.sweeping.funnel import Measured, funnel_of
    from embedtrain.evaluate.sweeping.sweep import IncompleteError
    from embedtrain.model.folder.export import load_encoder
    from embedtrain.ranks import rank
    from embedtrain.run.artefacts import show_leaderboard
    from embedtrain.run.cost import keeping_of, show_plan
    from embedtrain.run.measure import grid, measure
    from embedtrain.run.models import model_folder, name_of
    from embedtrain.types import InputError, SubModel

    if settings.model is None:
        raise InputError("model must be given, e.g. model=runs/mine")
    tasks = offline_tasks(settings) if settings.offline else None
    encoder = load_encoder(model_folder(prefetched_model(settings.model, settings.data_root)))
    trained = encoder.trained or (SubModel(encoder.num_layers, encoder.width),)
    name = name_of(settings.model)
    folder = Path(settings.output or Path(settings.output_root) / f"evaluation-{name}")
    cells = grid(settings.layers, settings.dims, settings.dtypes, trained)
    measured: list[Measured] = [*cells, *(funnel_of(row) for row in settings.funnels)]
    keeping = keeping_of(settings, folder)
    if settings.plan_only:
        show_plan(encoder, settings, cells, keeping, tasks)
        return
    failed: IncompleteError | None = None
    try:
        scores = measure(
            encoder, settings, measured, run=name, step=0, folder=folder, tasks=tasks, keeping=keeping
        )
    except IncompleteError as error:
        scores, failed = list(error.scores), error
    if rank() == 0 and scores:
        _show(folder, scores, trained, settings.rescore_multiplier)
        show_leaderboard(folder, scores, encoder)
    if failed is not None:
        raise failed


def _show(folder: Path, scores: list[Score], trained: Sequence[SubModel], rescore_multiplier: int) -> None:
    from rich.console import Console

    from embedtrain.report.figures import save_heat_map
    from embedtrain.report.funnels import funnel_table
    from embedtrain.report.table import comparison

    Console().print(comparison([], scores, trained=trained, rescore_multiplier=rescore_multiplier))
    if (table := funnel_table(scores)) is not None:
        Console().print(table)
    save_heat_map(folder / "heat_map.png", [], scores, trained=trained)
    print(f"scores: {folder / 'scores.jsonl'}   picture: {folder / 'heat_map.png'}")


if __name__ == "__main__":
    main()
