"""Several runs to one: read, merged, written as a run folder, measured beside its ingredients."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from embedtrain.devices import device_of, placed
from embedtrain.files.checkpoint_folder import StageFolder
from embedtrain.files.locks import only_thread
from embedtrain.files.measured.cost import read_cost
from embedtrain.files.measured.merge import Compared, Merge, Part, read_merge, write_merge
from embedtrain.files.run_folder import RunFolder
from embedtrain.files.scores import read_scores
from embedtrain.merging.weights import Given, Merged, Method, from_base
from embedtrain.model.folder.cards.card import renew_card
from embedtrain.model.folder.contract import tensors_hash
from embedtrain.model.folder.describe import plain_weights
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.reporting.figures import save_heat_map
from embedtrain.reporting.verdict.facts import Facts, Wanted
from embedtrain.run.measure import check_measurement, grid, measure_speed
from embedtrain.run.merging.ingredients import read_ingredients
from embedtrain.run.merging.measured import Grid, measure_merged, measured_on
from embedtrain.run.merging.probe import RowProbe
from embedtrain.run.models import name_of, run_folder
from embedtrain.run.results.artefacts import index_of, show_leaderboard
from embedtrain.run.results.story import story_of
from embedtrain.run.results.verdict import changes_of, judge_facts
from embedtrain.settings.compose import effective, given
from embedtrain.settings.tools import MergeSettings
from embedtrain.types import InputError, SubModel

log = logging.getLogger(__name__)


class MergedRun(NamedTuple):
    """What a merge wrote."""

    folder: Path  # a run folder
    merge: Merge


def merge(settings: MergeSettings) -> MergedRun:
    """Merge runs and measure the result. A merge that was stopped continues.

    Raises:
        InputError: for what the user can mend.
        IncompleteError: once the model is written, if a task could not be scored.
    """
    if settings.name is None:
        names = "-".join(name_of(run)[:60] for run in settings.runs[:4])
        settings = replace(settings, name=f"merged-{names}")
    assert settings.name is not None
    folder = RunFolder(settings.output_root, settings.name)
    with only_thread(f"the merge {settings.name}"):
        for run in settings.runs:
            if run_folder(run).resolve().is_relative_to(folder.path.resolve()):
                raise InputError(f"{folder.path} is to be merged: write the result elsewhere, with name=...")
        try:
            return _Merging(settings, folder).run()
        finally:
            folder.release()


class _Merging:
    """A merge, its ingredients read and its folder made."""

    def __init__(self, settings: MergeSettings, folder: RunFolder) -> None:
        self.folder, self.name = folder, folder.path.name
        self.method: Method = settings.method.build()
        self.method.check(len(settings.runs))
        self.share, self.seed = settings.base_share, settings.seed
        needs_base = "base" in self.method.needs or self.share > 0
        self.trust = settings.trust_remote_code
        self.ingredients = read_ingredients(
            settings.runs, settings.base, needs_base=needs_base, trust_remote_code=self.trust
        )
        self.device = device_of(settings.device)
        encoder = self.ingredients.encoder
        encoder.trained = self.ingredients.trained
        encoder.datasets = tuple(
            dict.fromkeys(name for one in self.ingredients.every for name in one.datasets)
        )
        self.probe = self._probe(settings)
        self.wanted = measured_on(settings.evaluation, self.ingredients)
        trained = encoder.trained or (SubModel(encoder.num_layers, encoder.width),)
        check_measurement(encoder, self.wanted, trained)
        self.cells = grid(self.wanted.layers, self.wanted.dims, self.wanted.dtypes, trained)
        # Whether tasks are measured decides when the run is finished, so the record says what they are.
        self._prepare(replace(settings, evaluation=self.wanted))

    def _probe(self, settings: MergeSettings) -> RowProbe | None:
        if "probe" not in self.method.needs:
            return None
        if settings.probe is None or settings.probe == []:
            raise InputError(f"method {_name(self.method)} asks the loss on some rows: give probe=ROWS")
        return RowProbe(self.ingredients.encoder, settings, self.ingredients.trained)

    def _prepare(self, settings: MergeSettings) -> None:
        every = self.ingredients.every
        identity = {
            f"weights of {one.name} ({n})": tensors_hash(one.weights)[:40] for n, one in enumerate(every, 1)
        }
        identity |= {} if self.probe is None else {"rows of the probe": self.probe.identity}
        identity |= {"base": self.ingredients.base_facts["weights"]} if self.ingredients.base_facts else {}
        facts = effective(settings), given(settings)
        self.folder.lock()
        if settings.overwrite:
            self.folder.begins_anew(*facts, identity)
        self.folder.prepare(*facts, identity, base=self.ingredients.base_facts, world_size=1)

    def run(self) -> MergedRun:
        """Merge, unless that is done, and measure."""
        if self.folder.model.exists():
            encoder = load_encoder(self.folder.model, trust_remote_code=self.trust)
            weights = {key: tensor.clone() for key, tensor in plain_weights(encoder).items()}
        else:
            weights = self._merged()
        self.folder.settle()
        score, compared = self._measured(weights)
        found = read_merge(self.folder.path)
        assert found is not None
        parts = [part._replace(compared=one) for part, one in zip(found.parts, compared, strict=True)]
        done = found._replace(parts=tuple(parts), score=score)
        write_merge(self.folder.path, done)
        self._judge()
        renew_card(self.folder.model, story_of(self.folder.path, self._index()))
        StageFolder(self.folder.path).finish(self.folder.model, self._step())
        return MergedRun(self.folder.path, done)

    def _merged(self) -> dict[str, Tensor]:
        every, encoder = self.ingredients.every, self.ingredients.encoder
        names, weights, base = self.ingredients.names, [one.weights for one in every], self.ingredients.base
        with placed(encoder, self.device):
            merged = self.method(Given(names, weights, base, self.probe, self.seed))
        if self.share:
            assert base is not None
            merged = Merged(from_base(base, [merged.weights], [1 - self.share]), merged.chosen)
        encoder.load_state_dict(merged.weights)
        path = self.ingredients.base_facts.get("path", "")
        parts = tuple(Part(one.name, one.source, tensors_hash(one.weights)[:40]) for one in every)
        said = Merge(self.name, _name(self.method), merged.chosen, path, self.share, parts)
        write_merge(self.folder.path, said)
        save_encoder(encoder, self.folder.model, story=story_of(self.folder.path))
        return dict(merged.weights)

    def _step(self) -> int:
        """Optimiser steps: the most that any ingredient was trained."""
        steps = [
            max((score.step for score in read_scores(one.folder / "scores.jsonl")), default=0)
            for one in self.ingredients.every
        ]
        return max(1, *steps)

    def _measured(self, weights: Mapping[str, Tensor]) -> tuple[float | None, Sequence[Compared | None]]:
        """As `measure_merged`; nothing without tasks."""
        if not self.wanted.tasks:
            return None, [None for _ in self.ingredients.every]
        encoder, folder = self.ingredients.encoder, self.folder.path
        wanted = Grid(self.wanted, self.cells, folder, self.name, self._step())
        with placed(encoder, self.device):
            found = measure_merged(wanted, self.ingredients, weights)
            measure_speed(encoder, self.cells, run=self.name, folder=folder)
        scores = read_scores(self.folder.scores)
        after = [score for score in scores if score.step == wanted.step]
        before = [score for score in scores if score.step == 0]
        save_heat_map(folder / "heat_map.png", before, after, trained=encoder.trained)
        show_leaderboard(folder, after, encoder)
        return found

    def _judge(self) -> None:
        """Write verdict.json: tasks against the base, the cut to ship; no findings, whose cures train."""
        encoder, folder, step = self.ingredients.encoder, self.folder.path, self._step()
        wanted, scores = self.wanted, read_scores(self.folder.scores)
        facts = Facts(
            self.name,
            step,
            whole=SubModel(encoder.num_layers, encoder.width),
            cost=read_cost(folder),
            scores=[score for score in scores if score.step == step],
            before=[score for score in scores if score.step == 0],
            changes=changes_of(folder, step),
            wanted=Wanted(wanted.tolerance, wanted.max_bytes, wanted.max_ms),
        )
        judge_facts(folder, facts)

    def _index(self) -> str:
        encoder = self.ingredients.encoder
        return index_of(self.folder.path, self.name, SubModel(encoder.num_layers, encoder.width))


def _name(method: Method) -> str:
    return type(method).__name__
