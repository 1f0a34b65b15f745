"""verdict.json of a run: its facts gathered, tasks compared with those of the untouched backbone."""

from __future__ import annotations

from pathlib import Path

from embedtrain import console
from embedtrain.evaluation.comparing.compare import Judgement, Row, compare_runs, items_of
from embedtrain.evaluation.comparing.runs import Run as Measured
from embedtrain.evaluation.comparing.runs import TaskSplit, at_step, at_whole
from embedtrain.evaluation.comparing.statistics import Settings as Resampling
from embedtrain.files.measured.cost import read_cost
from embedtrain.files.measured.health import read_health
from embedtrain.files.measured.metrics import METRICS, read_metrics
from embedtrain.files.measured.verdict import Change, Verdict, write_verdict
from embedtrain.files.measured.weights import read_weights
from embedtrain.files.scores import read_scores
from embedtrain.reporting.verdict.facts import Facts, Wanted
from embedtrain.reporting.verdict.judge import judged
from embedtrain.run.run import Run
from embedtrain.settings.compose import effective
from embedtrain.types import Cell, InputError, SubModel

JUDGEMENT = Judgement(Resampling(resamples=1000))


def judge(run: Run) -> Verdict:
    """Write verdict.json of a training and print its few lines."""
    return judge_facts(run.folder.path, facts_of(run))


def judge_facts(folder: Path, facts: Facts) -> Verdict:
    """Write verdict.json into a run folder and print its few lines."""
    verdict = judged(facts)
    write_verdict(folder, verdict)
    for line in verdict.lines:
        console.log(line)
    return verdict


def facts_of(run: Run) -> Facts:
    """What the files of a run say of it."""
    folder, step = run.folder.path, run.final_step
    whole, wanted = SubModel(run.encoder.num_layers, run.encoder.width), run.settings.evaluation
    scores = read_scores(run.folder.scores)
    return Facts(
        run.settings.name,
        step,
        settings=effective(run.stage.settings),
        words=run.words,
        trained=run.sub_models,
        whole=whole,
        metrics=read_metrics(run.stage.folder.path / METRICS),
        weights=read_weights(folder),
        health=read_health(folder),
        cost=read_cost(folder),
        scores=[score for score in scores if score.step == step],
        before=[score for score in scores if score.step == 0 and step],
        changes=changes_of(folder, step),
        wanted=Wanted(wanted.tolerance, wanted.max_bytes, wanted.max_ms),
    )


def changes_of(folder: Path, step: int, first: int = 0) -> list[Change]:
    """Each task at the largest float32 cell that both steps have; without a verdict where no items are kept.

    Args:
        folder: of a run.
        step: optimiser steps of the weights that are judged.
        first: of those that they are compared with.
    """
    try:
        *sides, cell = at_whole(at_step(folder, first), at_step(folder, step))
    except InputError:  # one of the two was not measured, or not the same
        return []
    keys = list(sides[1].scores)
    kept = [key for key in keys if all(items_of(run, key, cell).exists() for run in sides)]
    one, other = (run._replace(scores={key: run.scores[key] for key in kept}) for run in sides)
    rows = compare_runs(one, [other], [(cell, cell)], JUDGEMENT) if kept else []
    found = {(row.task, row.split): _judged(row) for row in rows}
    return [found.get(key) or _unjudged(key, cell, sides) for key in keys]


def _judged(row: Row) -> Change:
    layer, dim, dtype = row.second.cell
    change = Change(row.task, row.split, row.metric, layer, dim, dtype, row.first.score, row.second.score)
    if row.found is None:
        return change
    return change._replace(low=row.found.low, high=row.found.high, p=row.corrected, verdict=row.verdict)


def _unjudged(key: TaskSplit, cell: Cell, sides: list[Measured]) -> Change:
    task, split = key
    layer, dim, dtype = cell
    before, after = (run.scores[key][cell] for run in sides)
    return Change(task, split, after.metric, layer, dim, dtype, before.value, after.value)
