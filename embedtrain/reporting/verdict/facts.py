"""What a verdict is made of, all of it from the files of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from embedtrain.files.measured.cost import Speed
from embedtrain.files.measured.health import Health
from embedtrain.files.measured.metrics import Logged
from embedtrain.files.measured.verdict import Change, Finding
from embedtrain.files.measured.weights import Weights
from embedtrain.types import Score, SubModel

APART = 1.0  # relative change of a block after which it is no longer what was pretrained


class Wanted(NamedTuple):
    """What the cell to ship must keep to."""

    tolerance: float = 0.02  # share of the whole model's score that it may lose
    max_bytes: int | None = None  # of a vector; with a budget the best cell within it counts
    max_ms: float | None = None  # of a text in a batch


class Facts(NamedTuple):
    """A run; what it did not measure is empty."""

    run: str
    step: int
    settings: Mapping[str, Any] = {}  # effective ones of the last stage, as config.yaml has them
    words: Sequence[str] = ()  # of its command line
    trained: Sequence[SubModel] = ()
    whole: SubModel = SubModel(0, 0)
    metrics: Sequence[Logged] = ()
    weights: Weights | None = None
    health: Sequence[Health] = ()
    cost: Sequence[Speed] = ()
    scores: Sequence[Score] = ()  # of `step`
    before: Sequence[Score] = ()  # of the untouched backbone
    changes: Sequence[Change] = ()
    wanted: Wanted = Wanted()

    def setting(self, place: str) -> Any:  # noqa: ANN401 - whatever the setting is
        """The value at a place, as optim.lr; None where there is no such setting."""
        value: Any = self.settings
        for name in place.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    @property
    def most_moved(self) -> float | None:
        """The relative change of the block that moved most, a pooling excepted; None where unknown."""
        blocks = () if self.weights is None else self.weights.blocks
        return max((block.moved for block in blocks if block.block != "pooling"), default=None)

    def curve(self, name: str) -> Curve | None:
        """The first and last quarter of a metric; None where it was logged less than four times."""
        values = [line.values[name] for line in self.metrics if name in line.values]
        quarter = max(1, len(values) // 4)
        if len(values) < 4:
            return None
        return Curve(fmean(values[:quarter]), fmean(values[-quarter:]))

    def finding(self, name: str, text: str, **changes: object) -> Finding:
        """A finding whose cure is the run's own command with other settings; a dot in a key is written __."""
        return Finding(
            name, text, self.again({key.replace("__", "."): value for key, value in changes.items()})
        )

    def again(self, changes: Mapping[str, object]) -> str:
        """The command that trains the same run under another name with some settings changed."""
        name = next_name(self.run)
        if not self.words:
            return f"embedtrain.train with the same keywords and {_keywords({'name': name, **changes})}"
        words = dict.fromkeys(word for word in self.words if not _is_replaced(word, changes))
        new = [f"name={name}", *(f"{key}={_shown(value)}" for key, value in changes.items())]
        return shlex.join(["embedtrain-train", *words, *new])


class Curve(NamedTuple):
    """A metric at the beginning and the end of training."""

    first: float
    last: float

    @property
    def fall(self) -> float:
        """How much it fell, as a share of where it began."""
        return (self.first - self.last) / abs(self.first) if self.first else 0.0


def next_name(name: str) -> str:
    """mine-2 of mine, mine-3 of mine-2."""
    head, dash, number = name.rpartition("-")
    return f"{head}-{int(number) + 1}" if dash and head and number.isdigit() else f"{name}-2"


def _is_replaced(word: str, changes: Mapping[str, object]) -> bool:
    """Whether a word sets what is changed, or a setting of an option that is exchanged."""
    key = word.partition("=")[0].lstrip("+~")
    return key in (*changes, "name", "overwrite") or any(
        "." not in changed and key.startswith(f"{changed}.") for changed in changes
    )


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2g}"
    return str(value).replace(" ", "") if isinstance(value, list) else str(value)


def _keywords(changes: Mapping[str, object]) -> str:
    """The changes as keywords of Python: optim={'lr': 2e-05}, and a group as {'option': NAME, ...}."""
    nested: dict[str, Any] = {}
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = nested
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                place[parent] = inner = {"option": inner}
            place = inner
        place[last] = value
    return ", ".join(f"{key}={value!r}" for key, value in nested.items())
