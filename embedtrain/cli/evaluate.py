"""embedtrain-evaluate: mteb scores of a model at every (layer, dim, dtype) asked for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from pathlib import Path

    from embedtrain.settings.commands import EvaluateSettings
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
    from embedtrain.cli.offline import offline_tasks
    from embedtrain.cli.prefetch import prefetched_model
    from embedtrain.model.folder.export import load_encoder
    from embedtrain.ranks import rank
    from embedtrain.run.evaluate import evaluate_encoder
    from embedtrain.run.models import model_folder
    from embedtrain.types import InputError

    if settings.model is None:
        raise InputError("model must be given, e.g. model=runs/mine")
    tasks = offline_tasks(settings) if settings.offline else None
    folder = model_folder(prefetched_model(settings.model, settings.data_root))
    encoder = load_encoder(folder, trust_remote_code=settings.trust_remote_code)
    result = evaluate_encoder(settings, encoder, settings.model, tasks)
    if result is not None and rank() == 0 and result.scores:
        _show(result.folder, result.scores, result.trained, settings.rescore_multiplier)
    if result is not None and result.failed is not None:
        raise result.failed


def _show(folder: Path, scores: list[Score], trained: Sequence[SubModel], rescore_multiplier: int) -> None:
    from rich.console import Console

    from embedtrain.escaping import terminal
    from embedtrain.reporting.funnels import funnel_table
    from embedtrain.reporting.table import comparison

    Console().print(comparison([], scores, trained=trained, rescore_multiplier=rescore_multiplier))
    if (table := funnel_table(scores)) is not None:
        Console().print(table)
    print(terminal(f"scores: {folder / 'scores.jsonl'}   picture: {folder / 'heat_map.png'}"))


if __name__ == "__main__":
    main()
