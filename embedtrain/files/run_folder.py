"""The run folder: what state it is in, and whether a run may start, continue or must stop."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtrain.files import owned
from embedtrain.files.atomic import sync
from embedtrain.files.checkpoint_folder import CheckpointFolder, StageFolder
from embedtrain.files.locks import Lock, take
from embedtrain.files.run_record import (
    STAGES,
    changes,
    how_to_train_on,
    other_identity,
    read_record,
    require_same_identity,
    require_same_settings,
    write_record,
)
from embedtrain.types import InputError

log = logging.getLogger(__name__)

LONGEST = 200  # bytes of a name; folders beside the run add to it, and 255 is the limit of file systems
BESIDE = re.compile(rf"\..+\.(anew|dropped|{owned.REPLACED[1:]})")  # folders beside a run, see `RunFolder`
LEFT_OVER = ".config.yaml.tmp"  # of a run that was killed as it began
BAD_ROWS = "bad_rows"  # written as the data is read, before the folder is prepared
WHOLE = re.compile(r"(model|adapter|cut_L\d+_D\d+)/")  # folders in it that bear a mark of their own
COPY = re.compile(r"\.(model|adapter|cut_L\d+_D\d+)\.")  # of them, unfinished or replaced
# What a run or an evaluation writes, by its path in the run folder or in a stage's.
ENTRIES = re.compile(
    r"((stages|ingredients)/[^/]+/)?(eval_during/)?"
    r"(config\.yaml|metrics\.(jsonl|csv)|(scores|health|cost)\.jsonl|(tasks|weights|verdict|merge)\.json"
    r"|leaderboard\.(csv|md)|heat_map\.png|loggers\.json|finished\.json|comparison\.json|\.[^/]+\.tmp"
    r"|checkpoints/(\.?(step_\d+|last|best(_\w+)?)\.ckpt(\.damaged|\.tmp|\.link)?)"
    r"|map/[^/]+\.parquet|map/\.[^/]+\.tmp|mteb/.+\.jsonl?|items/.+\.npz(\.tmp)?|vectors/[^/]+/[^/]+\.vectors|mined/\.?(step|rank)_\d+\.npz(.*\.tmp)?"
    r"|bad_rows/([^/]+/)?[^/]+\.jsonl|wandb/(debug|(offline-)?run|latest|settings).*|lightning_logs/version_\d+/.+)"
)


class RunFolder:
    """`<output_root>/<name>` and the paths inside it (see ARCHITECTURE.md, "Run folder").

    Args:
        root: the folder of all runs.
        name: the run's name, one path component.

    Attributes:
        replaces: whether a run that is to begin takes the place of one that is still here.

    Raises:
        InputError: if `name` is not a plain folder name.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        if not name or name in (".", "..") or set("/\\\0") & set(name) or len(os.fsencode(name)) > LONGEST:
            raise InputError(f"name must be a plain folder name of at most {LONGEST} bytes, got {name!r}")
        if BESIDE.fullmatch(name):
            raise InputError(f"name={name} is what a folder beside a run is called: use another name")
        self.path = Path(root) / name
        self.config, self.scores = self.path / "config.yaml", self.path / "scores.jsonl"
        self.checkpoints, self.model = CheckpointFolder(self.path / "checkpoints"), self.path / "model"
        self._draft = self.path.with_name(f".{name}.anew")  # of a run that is to take the place of another
        self._replaced = self.path.with_name(f".{name}{owned.REPLACED}")
        self._dropped = self.path.with_name(f".{name}.dropped")
        self._locked: Lock | None = None
        self.replaces = False

    @property
    def reports(self) -> Path:
        """The folder of the reports of bad rows, which may be written before the run folder is prepared."""
        return (self._draft if self.replaces else self.path) / BAD_ROWS

    @property
    def is_finished(self) -> bool:
        """Whether the model is there, and measured if it was to be."""
        record = read_record(self.config)
        wanted = {} if record is None else record.part("evaluation")
        return self.model.exists() and (
            StageFolder(self.path).finished is not None or not wanted.get("tasks")
        )

    def stages(self, names: Sequence[str]) -> list[StageFolder]:
        """The folders of stages of these names, in their order."""
        numbered = [f"{number}_{name}" for number, name in enumerate(names[:-1], 1)]
        return [*(StageFolder(self.path / STAGES / name, name) for name in numbered), StageFolder(self.path)]

    def stranger(self) -> str | None:
        """Why the folder is not one that a run wrote, in words; None if it is."""
        return _stranger(self.path)

    def begins_anew(
        self, config: Mapping[str, Any], given: Mapping[str, Any], identity: Mapping[str, str] | None = None
    ) -> bool:
        """Whether `overwrite=true` replaces what is here; a run that it began itself goes on.

        Nothing is touched yet. Every rank sees the same, whether the first one has prepared the folder or
        not: a run that has just begun goes on from nothing.

        Raises:
            InputError: in the process that holds the lock, if it is not a run that is here.
        """
        record = read_record(self.config)
        self.replaces = self.config.exists() and not (
            record is not None
            and record.config.get("overwrite") is True
            and record.given is not None
            and changes(record, config, given)[:2] == ([], [])
            and not other_identity(record, identity or {})
            and not self.is_finished
        )
        if self.replaces and self._locked is not None:
            self._require_own()
        return self.replaces

    def forget_reports(self) -> None:
        """Remove the reports that a killed attempt to begin anew has left."""
        if self.replaces:
            _clear(self._draft)

    def prepare(
        self,
        config: Mapping[str, Any],
        given: Mapping[str, Any],
        identity: Mapping[str, str] | None = None,
        *,
        base: Mapping[str, str] | None = None,
        world_size: int,
    ) -> bool:
        """Make the folder ready for a run; True if an unfinished one continues.

        After `begins_anew` what a run left here is set aside, until `settle`.

        Args:
            config: the value of every setting, defaults included.
            given: those that were given.
            identity: hashes of what the run trains on.
            base: what it begins with (see `Record`).
            world_size: ranks.

        Raises:
            InputError: if another command works here, or the folder holds what this run cannot continue.
        """
        self.lock()
        identity = {} if identity is None else identity
        if self.replaces:
            self._require_own()
            draft = self._draft / "config.yaml"
            write_record(draft, config, given, identity, base=base, world_size=world_size)
            self._replace()
            return False
        record = read_record(self.config)
        if record is not None:
            if self.is_finished:
                advice = ", or overwrite=true to replace it" if self.stranger() is None else ""
                on = how_to_train_on(self.path, record, config)
                raise InputError(f"{self.path} holds a finished run. {on}Use another name=...{advice}")
            require_same_settings(self.path, record, config, given)
            require_same_identity(self.path, record, identity)
            return True
        if self.config.exists():
            raise InputError(
                f"{self.config} is damaged, or no run wrote it: put back a copy, use another name=..., or "
                "move it away"
            )
        self._require_free()
        self.path.mkdir(parents=True, exist_ok=True)
        write_record(self.config, config, given, identity, base=base, world_size=world_size)
        return False

    def settle(self) -> None:
        """Remove the run that this one replaces, once this one has a checkpoint or a model."""
        if self._replaced.is_dir() and self._has_product():
            reason = _stranger(self._replaced)
            if reason is None:
                self._drop(self._replaced)
            else:
                log.warning("%s, which was replaced, %s and is left alone", self._replaced, reason)

    def lock(self) -> None:
        """Keep other commands away until `release`, or until this process ends, and clean up after a kill."""
        if self._locked is None:
            self._locked = take(self.path)
            self._recover()

    def release(self) -> None:
        """Let other commands in before this process ends; does nothing without a lock."""
        if self._locked is not None:
            self.forget_reports()
            self._locked.close()
            self._locked = None

    def _recover(self) -> None:
        """What a killed command has left: the run that it had set aside comes back, or goes."""
        if os.path.lexists(self._replaced) and not self.path.exists():
            _require_run(self._replaced)
            owned.rename(self._replaced, self.path)
            log.warning("%s is back: a command was killed while it replaced it", self.path)
        self.settle()
        for folder in (self._draft, self._dropped):
            _clear(folder)
        copies = (COPY.match(path.name) for path in self.path.glob(".*"))
        for name in {found[1] for found in copies if found}:
            owned.recover(self.path / name)

    def _has_product(self) -> bool:
        stages = [CheckpointFolder(path / "checkpoints") for path in self.path.glob(f"{STAGES}/*")]
        return self.model.exists() or any(each.newest_first() for each in (self.checkpoints, *stages))

    def _replace(self) -> None:
        """Set the run that is here aside, and let the draft take its name.

        One that has no checkpoint yet goes, and what it was to replace stays set aside.
        """
        if os.path.lexists(self._replaced):
            _require_run(self._replaced)
            owned.rename(self.path, self._dropped)
        else:
            owned.rename(self.path, self._replaced)
            log.info("%s is set aside as %s until this run has a checkpoint", self.path, self._replaced)
        owned.rename(self._draft, self.path)
        sync(self.path.parent)
        owned.remove_tree(self._dropped)
        self.replaces = False
        if self.reports.exists():
            log.info("the report of rows that are left out is in %s", self.reports)

    def _drop(self, folder: Path) -> None:
        """Remove a run at once: a half of it would be nobody's."""
        _clear(self._dropped)
        owned.rename(folder, self._dropped)
        owned.remove_tree(self._dropped)

    def _require_own(self) -> None:
        """Refuse to replace what no run has written."""
        if (reason := self.stranger()) is not None:
            raise InputError(
                f"{self.path} {reason}, so it is left alone: use another name=..., or move it away"
            )

    def _require_free(self) -> None:
        """Refuse a folder that holds anything but what is written before a run begins."""
        there = os.listdir(self.path) if self.path.is_dir() else []
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file: use another name=...")
        if any(name not in (BAD_ROWS, LEFT_OVER) for name in there):
            raise InputError(
                f"{self.path} is not empty and holds no run: use another name=..., or empty it yourself"
            )


def _stranger(folder: Path) -> str | None:
    """Why a folder is not one that a run wrote, in words; None if it is."""
    if folder.is_symlink() or read_record(folder / "config.yaml") is None:
        return "is a link" if folder.is_symlink() else "was not written by a run"
    # Versions before marks wrote a contract only.
    for whole in [*folder.glob("cut_*"), folder / "adapter", folder / "model"]:
        marked = (whole / owned.MARK).exists() or not _has_contract(whole)
        if marked and any(owned.entries(whole)) and (reason := owned.stranger(whole)) is not None:
            return f"holds {whole.name}, which {reason}"
    return _unknown(folder)


def _unknown(folder: Path) -> str | None:
    """Which file of a folder no run writes there, in words; some loggers make a folder of their name."""
    record = read_record(folder / "config.yaml")
    named = None if record is None else record.part("logger").get("name")
    return owned.unknown(
        folder,
        lambda path: ENTRIES.fullmatch(path) or WHOLE.match(path) or (named and path.startswith(f"{named}/")),
    )


def _require_run(folder: Path) -> None:
    """Refuse a folder that bears the name of a run set aside and is none."""
    if (reason := _stranger(folder)) is not None:
        raise owned.refusal(folder, reason)


def _clear(folder: Path) -> None:
    """Remove a draft, or what a killed command has left of a run; an error if it holds anything else."""
    if os.path.lexists(folder):
        other = (folder / "config.yaml").exists() and read_record(folder / "config.yaml") is None
        reason = "holds config.yaml, which embedtrain did not write" if other else _unknown(folder)
        if reason is not None:
            raise owned.refusal(folder, reason)
        owned.remove_tree(folder)


def _has_contract(folder: Path) -> bool:
    return (folder / "embedtrain.json").is_file()
