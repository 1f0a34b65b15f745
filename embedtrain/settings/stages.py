"""The stages of a run: its settings, with what each entry of `stages` says in their place.

    stages:
      - {name: masked, step: masked, plan: full, trainer: {max_steps: 100}, data: {train: texts.jsonl}}
      - {name: contrastive}

An entry chooses an option of a group by its name, or gives settings that are merged into those of the group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.component import TARGET
from embedtrain.settings.compose import from_node, given
from embedtrain.settings.names import nearest
from embedtrain.settings.options import chosen_option, is_group, merged, option, settings_from
from embedtrain.types import InputError

# What a stage may have for itself; all else is the run's.
STAGED = tuple(
    "step data plan loss distill objective negatives guide gather gradcache queue mining optim trainer "
    "eval_during final_weights".split()
)
OF_PAIRS = tuple("loss distill negatives guide gradcache queue mining".split())
LONGEST = 60  # letters of a name, which is a part of a folder's
OF_TEXTS = "masked masked_bow smae retromae dupmae tsdae".split()  # steps that read no group of pairs
OF_THE_RUN = ("accelerator", "devices", "num_nodes", "shard")  # settings of the trainer that no stage changes


class StageSettings(NamedTuple):
    """One stage of a run."""

    name: str  # "" of a run that names no stages
    settings: TrainSettings  # of the run, with what the stage overrides


def stages_of(settings: TrainSettings) -> list[StageSettings]:
    """The stages of a run in their order; one with the run's own settings where it names none.

    Raises:
        InputError: for a stage without a name of its own, or a key or value that there is not.
    """
    if not settings.stages:
        usual = settings_from(TrainSettings, "train", {"name": "x", "data": {"train": "x"}})
        changed = [name for name in OF_PAIRS if getattr(settings, name) != getattr(usual, name)]
        _check_texts(settings, changed, "")
        return [StageSettings("", settings)]
    shared = {key: value for key, value in given(settings).items() if key != "stages"}
    stages: list[StageSettings] = []
    for number, entry in enumerate(settings.stages):
        where = f"stages[{number}]"
        if not isinstance(entry, Mapping):
            raise InputError(f"{where} must be a mapping such as {{name: masked, step: masked}}, got {entry}")
        name = entry.get("name")
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
            raise InputError(f"{where} needs a name of letters, digits, - and _, e.g. name: masked")
        if len(name) > LONGEST:
            raise InputError(f"{where}: a name has at most {LONGEST} letters, this one has {len(name)}")
        if name in [stage.name for stage in stages]:
            raise InputError(f"{where}: two stages have the name {name!r}")
        node = shared | {
            key: _changed(key, shared.get(key), value, f"{where}.{key}")
            for key, value in entry.items()
            if key != "name"
        }
        try:
            stages.append(StageSettings(name, from_node(type(settings), node)))
            _check_texts(stages[-1].settings, [key for key in OF_PAIRS if entry.get(key)], f"{where}.")
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return stages


def _check_texts(settings: TrainSettings, given_: Sequence[str], where: str) -> None:
    """Refuse groups of contrastive training that are set for a step that would ignore them, and FSDP.

    Heads and decoders look tokens up in the backbone's embeddings, which no rank of FSDP has whole.
    """
    steps = {option("step", name)[TARGET]: name for name in (*OF_TEXTS, "simcse")}
    step = steps.get(settings.step.target)
    unread = ("mining",) if step == "simcse" else OF_PAIRS if step else ()
    set_ = [name for name in given_ if name in unread and getattr(settings, name) is not None]
    if step not in (None, "simcse") and settings.trainer.shard:
        raise InputError(f"step={step} needs whole weights on each rank: use it without trainer.shard")
    if set_:
        raise InputError(
            f"{where}{set_[0]} is of pairs, and step={step} reads texts alone: leave out {', '.join(set_)}, "
            "or use step=contrastive"
        )


def recorded(settings: TrainSettings, show: Callable[[TrainSettings], dict[str, Any]]) -> dict[str, Any]:
    """What `show` (`effective` or `given`) says of the settings, and of those of each stage by its name."""
    node = show(settings)
    if settings.stages:
        shown = {stage.name: show(stage.settings) for stage in stages_of(settings)}
        node["stages"] = {
            f"{number}_{name}": {key: own[key] for key in STAGED if key in own}
            for number, (name, own) in enumerate(shown.items(), 1)
        }
    return node


def _changed(key: str, before: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - plain values of any kind
    """What a stage has for a key: an option of the group, the group's settings changed, or another value."""
    if key not in STAGED:
        raise InputError(
            f"{where}: a stage has no {key!r} of its own{nearest(key, STAGED)} It has: {', '.join(STAGED)}"
        )
    if key == "trainer" and isinstance(value, Mapping):
        for name in OF_THE_RUN:
            if name in value:
                raise InputError(f"{where}.{name} is the same for all stages: set trainer.{name}")
    if is_group(key):
        return chosen_option(key, value, before, where)
    return merged(before, value) if isinstance(value, Mapping) and isinstance(before, Mapping) else value
