"""The commands as functions: the same names and settings, objects back, in the process that calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.devices import device_of
from embedtrain.files.measured.verdict import Verdict, read_verdict
from embedtrain.files.scores import read_scores
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import check_sub_model, load_encoder
from embedtrain.model.inputs.prompts import listed_texts
from embedtrain.run.models import model_folder
from embedtrain.run.results.artefacts import score_frame
from embedtrain.settings.commands import (
    CompareSettings,
    EvaluateSettings,
    ExportSettings,
    MineSettings,
    ReportSettings,
    TrainSettings,
)
from embedtrain.settings.options import settings_from
from embedtrain.settings.places import package_path
from embedtrain.settings.signatures import plain
from embedtrain.types import InputError, Role, Score, SubModel

if TYPE_CHECKING:
    import pandas as pd


class Model:
    """A trained or untouched embedding model, at every layer and dimension that it has.

    Args:
        encoder: what embeds.
        source: the folder or hub name that it came from.
    """

    def __init__(self, encoder: Encoder, source: str) -> None:
        self.encoder, self.source = encoder, source

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""
        return self.encoder.num_layers

    @property
    def width(self) -> int:
        """D, the largest `dim`."""
        return self.encoder.width

    @property
    def trained(self) -> tuple[SubModel, ...]:
        """The (layer, dim) that training aimed at; empty for an untouched model."""
        return self.encoder.trained

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        layer: int | None = None,
        dim: int | None = None,
        role: Role = "document",
        prompt: str | None = None,
    ) -> NDArray[np.float32]:
        """Unit vectors (N, dim) of N texts, or (dim,) of a single one.

        Args:
            texts: one or more.
            layer: transformer blocks to run, 1..num_layers; all when None.
            dim: leading coordinates to keep, 1..width; all when None.
            role: "query" or "document": whose prompt stands before each text.
            prompt: another prompt; "" for none.

        Raises:
            InputError: if the model has no such layer or dim.
        """
        if role not in ("query", "document"):
            raise InputError(f"role must be query or document, got {role!r}")
        asked: dict[str, object] = {"layer": layer, "dim": dim}
        for name, value in asked.items():
            if not isinstance(value, Integral | None):
                raise InputError(f"{name} must be a whole number, got {value!r}")
        if not isinstance(prompt, str | None):
            raise InputError(f"prompt must be a text, got {prompt!r}")
        whole = SubModel(self.num_layers, self.width)
        sub = SubModel(whole.layer if layer is None else layer, whole.dim if dim is None else dim)
        check_sub_model(self.encoder, sub)
        listed = listed_texts(texts)
        vectors = self.encoder.encode(listed, (sub.layer,), role, prompt=prompt).at(sub)
        result: NDArray[np.float32] = vectors.float().numpy()
        return result[0] if isinstance(texts, str) else result

    def __repr__(self) -> str:
        return f"Model({self.source!r}, {self.num_layers} layers x {self.width} dims)"


class Run:
    """A finished run.

    Args:
        folder: `<output_root>/<name>`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def name(self) -> str:
        """Its name."""
        return self.folder.name

    @cached_property
    def model(self) -> Model:
        """What it trained."""
        return load(self.folder)

    @property
    def scores(self) -> list[Score]:
        """All that was measured: step 0 is the untouched backbone. Empty without evaluation."""
        file = self.folder / "scores.jsonl"
        return read_scores(file) if file.exists() else []

    @property
    def verdict(self) -> Verdict | None:
        """What it is worth and which cut to ship; None before it is published."""
        return read_verdict(self.folder)

    def table(self) -> pd.DataFrame:
        """Main scores, a row for each (step, task, split, layer, dtype), a column for each dim."""
        return score_frame(self.scores)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


class Evaluation(NamedTuple):
    """What was measured."""

    folder: Path
    scores: list[Score]

    def table(self) -> pd.DataFrame:
        """Main scores, a row for each (step, task, split, layer, dtype), a column for each dim."""
        return score_frame(self.scores)


class Mined(NamedTuple):
    """What a mining wrote."""

    rows: Path  # training rows with negatives
    statistics: dict[str, Any]


@plain
def load(model: str | Path | Run, *, device: str = "auto") -> Model:
    """The model of a run folder, a model folder, `package:NAME/folder` or a hub name.

    Args:
        model: what is loaded.
        device: "auto" is a GPU where there is one, else MPS, else the CPU; "cpu", "cuda", "cuda:1", "mps".

    Raises:
        InputError: if there is none, its run has not finished, or the device is not there.
    """
    source = _place(model, "model")
    located = package_path(source) if source.startswith("package:") else source
    place = device_of(device)
    return Model(load_encoder(model_folder(located)).to(place), source)


@plain
def train(**settings: Any) -> Run:  # noqa: ANN401 - as many types as there are settings
    """Train a model, or continue a run that was stopped; as `embedtrain-train`.

    Args:
        settings: `name` and `data` must be given. A group takes an option's name (`loss="cosent"`), a mapping
            (`plan={"pairs": [[3, 96], [6, 384]]}`, `loss={"option": "cosent", "temperature": 0.1}`) or None;
            `recipe` starts from a recipe.

    Raises:
        InputError: for what can be mended; nothing has been written then.
        KeyboardInterrupt: after Ctrl-C in the main thread; the last whole step is saved.
    """
    from embedtrain.run.train import train_here as run_training

    made = settings_from(TrainSettings, "train", settings)
    if made.trainer.devices * made.trainer.num_nodes > 1:
        raise InputError(
            "several devices need a process each: use the command embedtrain-train, or trainer={'devices': 1}"
        )
    return Run(run_training(made).folder.path)


@plain
def evaluate(model: Model | Run | str | Path, **settings: Any) -> Evaluation:  # noqa: ANN401
    """Scores of a model at every (layer, dim, dtype) asked for; as `embedtrain-evaluate`.

    Raises:
        InputError: for what cannot be measured, and for tasks that failed once all others are written.
    """
    from embedtrain.run.evaluate import evaluate_encoder

    loaded = model if isinstance(model, Model) else load(model, device="cpu")  # `device` moves it
    made = settings_from(EvaluateSettings, "evaluate", {"model": loaded.source, **settings})
    result = evaluate_encoder(made, loaded.encoder, loaded.source)
    if result is None:
        raise InputError("plan_only prints what an evaluation costs: use the command embedtrain-evaluate")
    if result.failed is not None:
        raise result.failed
    return Evaluation(result.folder, result.scores)


@plain
def export(model: Run | str | Path, out: str | Path, **settings: Any) -> Path:  # noqa: ANN401
    """The folder of a smaller model, or of an ONNX graph; as `embedtrain-export`.

    Raises:
        InputError: if there is no such model or cut, or `out` exists already.
    """
    from embedtrain.run.export import export as write

    keys = {"model": _place(model, "model"), "out": _place(out, "out"), **settings}
    return write(settings_from(ExportSettings, "export", keys)).folder


@plain
def mine(source: str | Path, out: str | Path, **settings: Any) -> Mined:  # noqa: ANN401
    """Training rows with hard negatives; as `embedtrain-mine`.

    Raises:
        InputError: for what can be mended; nothing has been written then.
    """
    from embedtrain.run.mine import mine as run_mining

    keys = {"source": _place(source, "source"), "out": _place(out, "out"), **settings}
    result = run_mining(settings_from(MineSettings, "mine", keys))
    if result.rows is None or result.statistics is None:
        raise InputError("shard encodes a part of the texts: use the command embedtrain-mine for it")
    return Mined(result.rows, json.loads(result.statistics.read_text("utf-8")))


@plain
def compare(runs: Sequence[Run | Evaluation | str | Path], **settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """Which differences are more than chance: rows, and what `embedtrain-compare` writes beside them.

    Raises:
        InputError: for what cannot be compared.
    """
    from embedtrain.run.compare import comparison_of, subset_of

    made = settings_from(CompareSettings, "compare", {"runs": _places(runs), **settings})
    return subset_of(made) if made.subset else comparison_of(made)


@plain
def report(
    runs: Run | Evaluation | str | Path | Sequence[Run | Evaluation | str | Path],
    **settings: Any,  # noqa: ANN401
) -> Path:
    """The file of one HTML page of runs, finished or not; as `embedtrain-report`.

    Raises:
        InputError: a folder that does not exist, a file in the place that is not ours, plotly is missing.
    """
    from embedtrain.run.report.page import write_report

    if settings.get("serve"):
        raise InputError("serve=true answers until Ctrl-C: use the command embedtrain-report")
    return write_report(settings_from(ReportSettings, "report", {"runs": _places(runs), **settings})).page


def _places(runs: object) -> list[str]:
    """The folders of a run or several."""
    every = [runs] if isinstance(runs, str | Path | Run | Evaluation) else runs
    if not isinstance(every, Iterable):
        raise InputError(f"runs must be a list of runs or folders, got {runs!r}")
    return [_place(run, "runs") for run in every]


def _place(given: object, name: str) -> str:
    """The path or hub name of what was given."""
    given = given.folder if isinstance(given, Run | Evaluation) else given
    if not isinstance(given, str | Path) or not str(given):
        raise InputError(f"{name} must be a path, a name or a Run, got {given!r}")
    return str(given)
