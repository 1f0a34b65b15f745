"""The run folder: what state it is in, and whether a run may start, continue or must stop."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, NamedTuple

import yaml

from embedtrain.files.atomic import write_text
from embedtrain.files.checkpoint_folder import CheckpointFolder
from embedtrain.files.reading import read_json, read_yaml, reading
from embedtrain.types import InputError

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
LEFT_OVER = ".config.yaml.tmp"  # of a run that was killed as it began
STAGES = "stages"
BAD_ROWS = "bad_rows"  # written as the data is read, before the folder is prepared
PACKAGES = ("embedtrain", "torch", "transformers", "sentence-transformers", "pytorch-lightning", "mteb")


class Finished(NamedTuple):
    """What a finished stage hands on."""

    weights: Path  # the checkpoint that the next stage begins with
    steps: int  # optimiser steps of the stage


class StageFolder:
    """Where a stage writes: `stages/<number>_<name>` of the run folder, the last one the run folder itself.

    Args:
        path: the folder.
        name: of a stage that is not the last.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self.path, self.name, self.checkpoints = path, name, CheckpointFolder(path / "checkpoints")
        self._end = path / "finished.json"

    @property
    def finished(self) -> Finished | None:
        """What the stage ended with; None while it has not."""
        if not self._end.exists():
            return None
        cure = "Put back a copy, or start anew with overwrite=true"
        facts = read_json(self._end, cure)
        with reading(self._end, cure):
            return Finished(self.checkpoints.path / Path(facts["weights"]).name, int(facts["steps"]))

    def finish(self, weights: Path, steps: int) -> None:
        """Take down what the next stage begins with, at once or not at all."""
        write_text(self._end, json.dumps({"weights": weights.resolve().name, "steps": steps}) + "\n")


class RunFolder:
    """`<output_root>/<name>` and the paths inside it (see ARCHITECTURE.md, "Run folder").

    Args:
        root: the folder of all runs.
        name: the run's name, one path component.

    Raises:
        InputError: if `name` is not a plain folder name.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        if not name or name in (".", "..") or "/" in name or "\\" in name:
            raise InputError(f"name must be a plain folder name, got '{name}'")
        self.path = Path(root) / name
        self.config, self.scores = self.path / "config.yaml", self.path / "scores.jsonl"
        self._locked: IO[bytes] | None = None
        self._forgotten = False
        self.checkpoints, self.model = CheckpointFolder(self.path / "checkpoints"), self.path / "model"

    def forget_bad_rows(self) -> None:
        """Remove the reports of an earlier run that is to be overwritten, before the data is read again.

        Only the first call does: later ones would take the reports of this run.

        Raises:
            InputError: if another command works on this folder.
        """
        self._lock()
        if self.config.exists() and not self._forgotten:
            shutil.rmtree(self.path / BAD_ROWS, ignore_errors=True)
        self._forgotten = True

    def stages(self, names: Sequence[str]) -> list[StageFolder]:
        """The folders of stages of these names, in their order."""
        numbered = [f"{number}_{name}" for number, name in enumerate(names[:-1], 1)]
        return [*(StageFolder(self.path / STAGES / name, name) for name in numbered), StageFolder(self.path)]

    def prepare(
        self, config: Mapping[str, Any], given: Mapping[str, Any], *, overwrite: bool, world_size: int
    ) -> bool:
        """Make the folder ready for a run; True if an unfinished one continues.

        Args:
            config: the value of every setting, defaults included.
            given: those that were given.
            overwrite: whether what a run left here may go.
            world_size: ranks.

        Raises:
            InputError: if another command works on this folder, or it holds a finished run, an unfinished
                one with other settings, or anything else.
        """
        self._lock()
        if overwrite and self.config.exists():  # never delete what no run has written
            gone = self.path.with_name(f".{self.path.name}.{os.getpid()}.overwritten")
            self.path.rename(gone)  # at once: half of a run would be nobody's
            if (gone / BAD_ROWS).exists():  # of the data as this run has just read it
                self.path.mkdir()
                (gone / BAD_ROWS).rename(self.path / BAD_ROWS)
            shutil.rmtree(gone)
        if self.model.exists():
            raise InputError(
                f"{self.path} holds a finished run. Use another name=..., or overwrite=true to replace it"
            )
        if self.config.exists():
            self._require_same(config, given)
            return True
        if self.path.exists() and not all(_is_free(item.name) for item in self.path.iterdir()):
            raise InputError(
                f"{self.path} is not empty and holds no run: use another name=..., or empty it yourself"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        facts = {
            "config": dict(config),
            "given": dict(given),
            "versions": versions(),
            "commit": commit(),
            "world_size": world_size,
        }
        write_text(self.config, yaml.safe_dump(facts, sort_keys=False))
        return False

    def release(self) -> None:
        """Let other commands in before this process ends; does nothing without a lock."""
        if self._locked is not None:
            self._locked.close()
            self._locked = None

    def _lock(self) -> None:
        """Keep other commands away until `release`, or until this process ends, in whatever way.

        A POSIX lock beside the folder, which `overwrite` replaces: no forked worker of a killed run has it.
        """
        if self._locked is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.with_name(f".{self.path.name}.lock").open("ab")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise InputError(
                f"another command is working on {self.path}: wait for its end, stop it, or use "
                "another name=..."
            ) from error
        self._locked = file

    def _require_same(self, config: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Refuse to continue a run with other settings; warn of settings that one of the versions lacks."""
        cure = "Put back a copy, or start anew with overwrite=true"
        facts = read_yaml(self.config, cure)
        with reading(self.config, cure):
            before, release = _flat(facts["config"]), facts["versions"]["embedtrain"]
            said = None if "given" not in facts else _flat(facts["given"]).keys() | _flat(given).keys()
        if said is None:
            raise InputError(
                f"{self.path} holds an unfinished run of embedtrain {release}, whose config.yaml does not "
                "hold its defaults. Finish it with that version, use another name=..., or overwrite=true to "
                "start anew"
            )
        now = _flat(config)
        other, defaults = [], []
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) == now.get(key) or _is_unchecked(key):
                continue
            text = f"{key}: was {before.get(key, 'unset')}, is {now.get(key, 'unset')}"
            if key in said:
                other.append(text)
            elif key in before and key in now:
                defaults.append(text)
            else:
                log.warning(
                    "%s, a setting that only one of embedtrain %s and this version has", text, release
                )
        if other:
            raise InputError(
                f"{self.path} holds an unfinished run with other settings ({'; '.join(other)}). Repeat its "
                "settings to continue it, use another name=..., or overwrite=true to start anew"
            )
        if defaults:
            raise InputError(
                f"{self.path} holds an unfinished run of embedtrain {release}, and defaults have changed "
                f"since ({'; '.join(defaults)}). Give the old values to continue it, e.g. "
                f"{_assignment(defaults[0])}, use another name=..., or overwrite=true to start anew"
            )


def _is_unchecked(key: str) -> bool:
    """Whether a setting of the run or of a stage may change; the weights that a stage hands on may not."""
    first, _, rest = key.partition(".")
    if first != STAGES:
        return key.startswith(FREE)
    own = rest.partition(".")[2]
    return own.startswith(FREE) and own != "final_weights"


def _assignment(change: str) -> str:
    """The words `optim.lr=2e-05` of the line `optim.lr: was 2e-05, is 1e-05`."""
    key, _, values = change.partition(": was ")
    return f"{key}={values.partition(', is ')[0]}"


def _is_free(name: str) -> bool:
    """Whether a file may be in a folder that holds no run yet."""
    return name in (BAD_ROWS, LEFT_OVER)


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


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of all values; parts in lists by their number, as `negatives.rules.0.margin`."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(number): item for number, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
