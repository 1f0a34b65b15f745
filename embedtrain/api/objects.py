"""What the functions give: models, runs, evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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


@plain
def load(model: str | Path | Run, *, device: str = "auto", trust_remote_code: bool = False) -> Model:
    """The model of a run folder, a model folder, `package:NAME/folder` or a hub name.

    Args:
        model: what is loaded.
        device: "auto" is a GPU where there is one, else MPS, else the CPU; "cpu", "cuda", "cuda:1", "mps".
        trust_remote_code: run the code that lies in its folder (`auto_map`).

    Raises:
        InputError: if there is none, its run has not finished, or the device is not there.
    """
    source = place_of(model, "model")
    located = package_path(source) if source.startswith("package:") else source
    place = device_of(device)
    encoder = load_encoder(model_folder(located), trust_remote_code=trust_remote_code)
    return Model(encoder.to(place), source)


def place_of(given: object, name: str) -> str:
    """The path or hub name of what was given."""
    given = given.folder if isinstance(given, Run | Evaluation) else given
    if not isinstance(given, str | Path) or not str(given):
        raise InputError(f"{name} must be a path, a name or a Run, got {given!r}")
    return str(given)
