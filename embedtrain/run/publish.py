"""What surrounds a training: scores before and after it, and what the run publishes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from embedtrain import console
from embedtrain.data.entries import entries_of
from embedtrain.data.read.hub import is_hub_name
from embedtrain.devices import placed
from embedtrain.evaluation.sweeping.sweep import IncompleteError
from embedtrain.files.measured.verdict import Cut, Verdict
from embedtrain.files.scores import read_scores
from embedtrain.model.backbone.lora import has_lora
from embedtrain.model.folder.adapter import save_adapter
from embedtrain.model.folder.cards.card import PICTURE, renew_card
from embedtrain.model.folder.export import save_encoder
from embedtrain.ranks import alone
from embedtrain.reporting.figures import save_heat_map
from embedtrain.reporting.table import comparison
from embedtrain.run.measure import grid, measure, measure_speed
from embedtrain.run.results.artefacts import index_of, show_leaderboard
from embedtrain.run.results.moved import take_down_moved
from embedtrain.run.results.story import story_of
from embedtrain.run.results.verdict import judge
from embedtrain.run.run import Run
from embedtrain.training.checkpoints import take_weights
from embedtrain.types import Cell, SubModel


def evaluate_before(run: Run) -> IncompleteError | None:
    """Score the untouched backbone on every cell; a resumed run keeps the scores it has.

    Returns:
        The tasks that could not be scored: of a training that takes hours nothing is thrown away for them.
    """
    if not (run.is_main and run.settings.evaluation.before and run.untouched):
        return None
    return _measure(run, "measuring the untouched backbone", 0, f"{run.settings.name}_untouched")


def evaluate_stage(run: Run, stage: str) -> IncompleteError | None:
    """Score what a stage hands on, on the same cells; what was scored before a stop is kept.

    Returns:
        As `evaluate_before`.
    """
    wanted, end = run.settings.evaluation, run.final_step
    if not (wanted.tasks and wanted.after_stages):
        return None
    run.take_final()
    return _measure(run, f"measuring the model after {stage}", end, f"{run.settings.name}_{stage}")


class Published(NamedTuple):
    """A folder that was written, and whose scores its card gives."""

    folder: Path
    name: str
    sub: SubModel
    step: int  # of its weights


def publish(run: Run) -> list[Published]:
    """Write the cuts and, last, the model, if it is not there; what was written. Scores come later."""
    if not run.is_main:
        return []
    run.check_folder()
    run.encoder.datasets = _hub_datasets(run)
    written = [_write_cut(run, cut) for cut in run.cuts]
    if has_lora(run.encoder.backbone):
        save_adapter(run.encoder, run.folder.path / "adapter", overwrite=True)
    whole = SubModel(run.encoder.num_layers, run.encoder.width)
    if not run.folder.model.exists():
        save_encoder(run.encoder, run.folder.model)
    run.folder.settle()
    take_down_moved(run)
    return [*written, Published(run.folder.model, run.settings.name, whole, run.final_step)]


def evaluate_after(run: Run, published: Sequence[Published]) -> IncompleteError | None:
    """Score the trained model on the same cells, show both, put the scores into the cards, and judge.

    Returns:
        As `evaluate_before`.
    """
    if not run.is_main:
        return None
    failed = None
    if run.settings.evaluation.tasks:
        failed = _measure(run, "measuring the trained model", run.final_step)
        with placed(run.encoder, run.stage.trainer.strategy.root_device):
            measure_speed(run.encoder, _cells(run), run=run.settings.name, folder=run.folder.path)
        _show(run)
    verdict = judge(run)
    for each in published:
        index = index_of(run.folder.path, each.name, each.sub, each.step)
        renew_card(each.folder, story_of(run.folder.path, index))
    _say_what_is_there(run, verdict)
    return failed


def _hub_datasets(run: Run) -> tuple[str, ...]:
    """The hub's names of what the starting model and this run were trained on, each once."""
    sources = (entry.read["source"] for entry in entries_of(run.settings.data.train))
    own = (str(source).partition(":")[0] for source in sources if is_hub_name(source))
    return tuple(dict.fromkeys((*run.encoder.datasets, *own)))


def _say_what_is_there(run: Run, verdict: Verdict) -> None:
    console.log(f"finished in {console.duration(time.monotonic() - run.started)}: {run.folder.model}")
    for cut in run.cuts:
        console.log(f"  cut to {cut.layer} layers, {cut.dim} dims: {run.folder.path / f'cut_{cut}'}")
    console.log(_next(run, verdict.cut))


def _next(run: Run, ship: Cut | None) -> str:
    """The command to type next: the export of the cut to ship; the report, where that is the whole model."""
    smaller = run.sub_models[:-1] or run.sub_models
    sub = smaller[len(smaller) // 2] if ship is None else SubModel(ship.layer, ship.dim)
    folder = shlex.quote(str(run.folder.path))
    if ship is not None and sub == SubModel(run.encoder.num_layers, run.encoder.width):
        return f"next: ship it whole, or look at every cut   embedtrain-report {folder}"
    export = f"embedtrain-export model={folder} layer={sub.layer} dim={sub.dim}"
    what = "cut it to any size" if ship is None else "export the cut to ship"
    return f"next: {what}   {export} out={run.settings.name}-{sub}"


def _write_cut(run: Run, cut: SubModel) -> Published:
    """Write one cut into the run folder, of the weights that were best for it, where there are such.

    The model has those of the final step, and again afterwards. Scores of other weights are not in the card.
    """
    settings, folder, step = run.settings, run.folder, run.final_step
    own = folder.checkpoints.best_of(str(cut))
    best = run.stage.during is not None and run.stage.during.best_per_cut and own.exists()
    if best:
        step = take_weights(run.stage.module, own)
        console.log(f"cut {cut} has the weights of step {step}, where it was best")
    written = Published(folder.path / f"cut_{cut}", f"{settings.name}_{cut}", cut, step)
    save_encoder(run.encoder, written.folder, cut, overwrite=True)
    if best:
        checkpoints = folder.checkpoints
        take_weights(
            run.stage.module, checkpoints.best if settings.final_weights == "best" else checkpoints.last
        )
    return written


def _measure(run: Run, what: str, step: int, mteb_name: str | None = None) -> IncompleteError | None:
    """`mteb_name`: of weights that are not the last ones, since mteb shows one revision of a name alone."""
    wanted = run.settings.evaluation
    if not wanted.tasks:
        return None
    begun, failed, name = time.monotonic(), None, run.settings.name
    run.check_folder()
    console.log(what)
    try:
        # Lightning brings a model back to the CPU as training ends. Other ranks wait.
        with alone(), placed(run.encoder, run.stage.trainer.strategy.root_device):
            measure(
                run.encoder, wanted, _cells(run), run=name, step=step, folder=run.folder.path,
                mteb_name=mteb_name or name,
            )  # fmt: skip
    except IncompleteError as error:
        failed = error
        console.log(str(error))
    console.log(f"measured in {console.duration(time.monotonic() - begun)}")
    return failed


def _cells(run: Run) -> list[Cell]:
    wanted = run.settings.evaluation
    return grid(wanted.layers, wanted.dims, wanted.dtypes, run.sub_models)


def _show(run: Run) -> None:
    scores = read_scores(run.folder.scores)
    after = [score for score in scores if score.step == run.final_step]
    if not after:
        return
    before = [score for score in scores if score.step == 0]
    tasks = {score.task for score in after}
    between = {
        name: [score for score in scores if score.step == step and score.task in tasks]
        for name, step in run.ends.items()
    }
    Console().print(comparison(before, after, trained=run.sub_models, stages=between))
    picture = run.folder.path / PICTURE
    save_heat_map(picture, before, after, trained=run.sub_models)
    show_leaderboard(run.folder.path, after, run.encoder)
    console.log(f"picture: {picture}")
