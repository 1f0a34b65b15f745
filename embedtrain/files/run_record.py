"""config.yaml of a run: its settings, its versions and what it trains on; whether a run may go on with it."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from embedtrain.files.atomic import write_text
from embedtrain.files.reading import read_yaml
from embedtrain.types import InputError

UNSET = {"pooling": "own", "logger": "files"}  # the option that leaves a group unset, where it is not `none`
log = logging.getLogger(__name__)

# Keys that may change between a run and its continuation without changing what is computed.
FREE = (
    "overwrite",
    "output_root",
    "logger",
    "evaluation",
    "optimized_metric",
    "exports",
    "final_weights",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.shard",
    "trainer.timeout_minutes",
    "trainer.checkpoint_every_n_steps",
    "trainer.save_total_limit",
    "trainer.log_every_n_steps",
)
STAGES = "stages"
PACKAGES = ("embedtrain", "torch", "transformers", "sentence-transformers", "pytorch-lightning", "mteb")


class Record(NamedTuple):
    """What a run wrote of itself as it began."""

    config: dict[str, Any]  # the value of every setting, defaults included
    given: dict[str, Any] | None  # those that were given; None in a run of a version that did not say
    versions: dict[str, str]
    identity: dict[str, str]  # hashes of what it trains on, by what they are of; empty in an old run
    base: dict[str, str]  # what it began with: its whole path or hub name, and the hash of its weights
    commit: str | None = None  # of the embedtrain checkout; None outside one
    world_size: int | None = None  # ranks

    def part(self, key: str) -> Mapping[str, Any]:
        """The settings of a group; none where it was not chosen."""
        value = self.config.get(key)
        return value if isinstance(value, Mapping) else {}


class Changes(NamedTuple):
    """How settings differ from those of a record, each as "key: was A, is B"."""

    given: list[str]  # of keys that somebody gave
    defaults: list[str]
    unknown: list[str]  # that one of the two versions lacks


def read_record(path: Path) -> Record | None:
    """What config.yaml says; None where there is none that a run wrote."""
    try:
        facts = read_yaml(path, "")
        config, versions, given = facts["config"], facts["versions"], facts.get("given")
        identity, base = facts.get("identity", {}), facts.get("base", {})
        commit, ranks = facts.get("commit"), facts.get("world_size")
    except (InputError, KeyError, TypeError, AttributeError):
        return None
    parts = (config, versions, identity, base, {} if given is None else given)
    if not all(isinstance(part, dict) for part in parts) or "embedtrain" not in versions:
        return None
    commit = commit if isinstance(commit, str) else None
    ranks = ranks if isinstance(ranks, int) else None
    return Record(config, given, versions, identity, base, commit, ranks)


def how_to_train_on(folder: Path, record: Record, config: Mapping[str, Any]) -> str:
    """The words that train a finished run on, for settings that ask for more steps; "" for others.

    Its learning rate has decayed to the end of its steps, so more of them are another run.
    """
    now = config.get("trainer")
    longer = [
        f"{key} was {record.part('trainer').get(key)}, is {now.get(key)}"
        for key in ("max_steps", "max_epochs")
        if isinstance(now, Mapping) and now.get(key) != record.part("trainer").get(key)
    ]
    words = f"name={folder.name}-more backbone.path={folder / 'model'}"
    return f"{', '.join(longer)}: to train on from its weights, give {words}. " if longer else ""


def write_record(
    path: Path,
    config: Mapping[str, Any],
    given: Mapping[str, Any],
    identity: Mapping[str, str],
    *,
    base: Mapping[str, str] | None = None,
    world_size: int,
) -> None:
    """Write config.yaml, whole, with versions and commit."""
    facts = {
        "config": dict(config),
        "given": dict(given),
        "versions": versions(),
        "commit": commit(),
        "world_size": world_size,
        "identity": dict(identity),
        "base": dict(base or {}),
    }
    write_text(path, yaml.safe_dump(facts, sort_keys=False))


def changes(record: Record, config: Mapping[str, Any], given: Mapping[str, Any]) -> Changes:
    """How settings differ from those of a record, but for those that may."""
    before, now = flat(record.config), flat(config)
    said = flat(record.given or {}).keys() | flat(given).keys()
    found = Changes([], [], [])
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) == now.get(key) or _is_unchecked(key):
            continue
        both = key in before and key in now
        kind = found.given if key in said else found.defaults if both else found.unknown
        kind.append(f"{key}: was {before.get(key, 'unset')}, is {now.get(key, 'unset')}")
    return found


def require_same_settings(
    folder: Path, record: Record, config: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Refuse to continue a run with other settings; warn of settings that one of the versions lacks."""
    release = record.versions["embedtrain"]
    if record.given is None:
        raise InputError(
            f"{folder} holds an unfinished run of embedtrain {release}, whose config.yaml does not "
            "hold its defaults. Finish it with that version, use another name=..., or overwrite=true to "
            "start anew"
        )
    found = changes(record, config, given)
    if found.given:
        raise InputError(
            f"{folder} holds an unfinished run with other settings ({'; '.join(found.given)}). Repeat its "
            f"settings{_unset(found.given)} to continue it, use another name=..., or overwrite=true to "
            "start anew"
        )
    for text in found.unknown:
        log.warning("%s, a setting that only one of embedtrain %s and this version has", text, release)
    if found.defaults:
        raise InputError(
            f"{folder} holds an unfinished run of embedtrain {release}, and defaults have changed "
            f"since ({'; '.join(found.defaults)}). Give the old values to continue it, e.g. "
            f"{_assignment(found.defaults[0])}, use another name=..., or overwrite=true to start anew"
        )


def other_identity(record: Record, identity: Mapping[str, str]) -> list[str]:
    """What a run now trains on that it did not begin with: "tokenizer", "training rows of pairs"."""
    return [name for name in record.identity if name in identity and record.identity[name] != identity[name]]


def require_same_identity(folder: Path, record: Record, identity: Mapping[str, str]) -> None:
    """Refuse to continue a run on other rows, another tokenizer or other weights; warn of other versions."""
    if other := other_identity(record, identity):
        raise InputError(
            f"{folder} holds an unfinished run, and what it trains on has changed since it began: "
            f"{', '.join(other)}. Put back what was there to continue it, use another name=..., or "
            "overwrite=true to start anew"
        )
    now = versions()
    changed = [
        f"{name} was {before}, is {now[name]}"
        for name, before in record.versions.items()
        if name in now and before != now[name]
    ]
    if changed:
        log.warning(
            "%s goes on with other versions than it began with: %s. Its numbers may differ from those of a "
            "run in one go",
            folder,
            "; ".join(changed),
        )


def _is_unchecked(key: str) -> bool:
    """Whether a setting of the run or of a stage may change; the weights that a stage hands on may not."""
    first, _, rest = key.partition(".")
    if first != STAGES:
        return key.startswith(FREE)
    own = rest.partition(".")[2]
    return own.startswith(FREE) and own != "final_weights"


def _unset(changed: Sequence[str]) -> str:
    """The words that leave groups unset which a run had unset, maybe by the defaults of another version."""
    groups = [text.partition(mark)[0] for text in changed if (mark := "._target_: was unset") in text]
    words = " ".join(f"{group}={UNSET.get(group, 'none')}" for group in groups)
    return f", {words}," if words else ""


def _assignment(change: str) -> str:
    """The words `optim.lr=2e-05` of the line `optim.lr: was 2e-05, is 1e-05`."""
    key, _, values = change.partition(": was ")
    return f"{key}={values.partition(', is ')[0]}"


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "not installed"
    return installed


def commit() -> str | None:
    """Git commit of the embedtrain checkout, with "+changes" where it has any; None outside one."""
    here = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of all values; parts in lists by their number, as `negatives.rules.0.margin`."""
    dotted: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            dotted |= flat(value, f"{prefix}{key}.")
        else:
            dotted[f"{prefix}{key}"] = value
    return dotted
