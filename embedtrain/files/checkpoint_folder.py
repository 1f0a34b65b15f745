"""The checkpoints of a run: one file a save, named by its step, and which of them to continue from."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import NamedTuple

from embedtrain.files import owned
from embedtrain.files.atomic import write_text
from embedtrain.files.checksum import fault_of
from embedtrain.files.reading import read_json, reading
from embedtrain.types import InputError

log = logging.getLogger(__name__)

NAME = re.compile(r"step_(\d{9,})\.ckpt")
LEFT_OVER = re.compile(r"\..*\.ckpt\.tmp")  # what a killed process had not finished writing


class CheckpointFolder:
    """The newest `save_total_limit` of `step_<step>.ckpt`; `last.ckpt`, a link to the newest; `best.ckpt`.

    Args:
        path: the folder; it need not exist.
        save_total_limit: how many stay.

    Raises:
        InputError: if `save_total_limit` is below 1.
    """

    def __init__(self, path: str | Path, save_total_limit: int = 2) -> None:
        if save_total_limit < 1:
            raise InputError(f"save_total_limit must be at least 1, got {save_total_limit}")
        self.path, self.save_total_limit = Path(path), save_total_limit
        self.last, self.best = self.path / "last.ckpt", self.path / "best.ckpt"

    def at(self, step: int) -> Path:
        """Where the checkpoint of a step goes."""
        return self.path / f"step_{step:09d}.ckpt"

    def best_of(self, cut: str) -> Path:
        """Where the weights go that are best for one sub-model, as L3_D96."""
        return self.path / f"best_{cut}.ckpt"

    def newest_first(self) -> list[Path]:
        """The checkpoints there are; where there is none, a `last.ckpt` that was copied here as a file."""
        paths = sorted(self.path.glob("step_*.ckpt"), key=_step, reverse=True)
        copied = [self.last] if self.last.is_file() and not self.last.is_symlink() else []
        return [path for path in paths if NAME.fullmatch(path.name)] or copied

    def keep(self, newest: Path) -> None:
        """Let `last.ckpt` be `newest`, which has just been written, and remove what is too old."""
        self._link(newest)
        for old in self.newest_first()[self.save_total_limit :]:
            owned.remove_file(old, self.path)

    def newest_whole(self, *, repair: bool) -> Path | None:
        """The newest checkpoint that is what was written; None if there is none to begin with.

        Args:
            repair: warn of damaged files and give them another name (`.damaged`), let `last.ckpt` be what is
                returned, and remove what a killed process had not finished. For one process of the run alone.

        Raises:
            InputError: if there are checkpoints and none is whole.
        """
        paths = self.newest_first()
        faults: list[str] = []
        for path in paths:
            try:
                fault = fault_of(path)
            except FileNotFoundError:  # the process that repairs was faster
                continue
            if fault is None:
                if repair:
                    self._repair(path, faults)
                return path
            faults.append(f"{path} {fault}")
        if faults:
            raise InputError(
                f"no checkpoint is whole: {'; '.join(faults)}. Put back a copy under its name and run the "
                "same command again, or start anew with overwrite=true"
            )
        return None

    def _repair(self, whole: Path, faults: list[str]) -> None:
        for fault in faults:
            log.warning("%s; continuing from %s, which is whole", fault, whole.name)
        for damaged in self.newest_first()[: len(faults)]:
            owned.rename(damaged, damaged.with_name(f"{damaged.name}.damaged"))
        for torn in self.path.iterdir():
            if LEFT_OVER.fullmatch(torn.name):
                owned.remove_file(torn, self.path)
        if whole != self.last:
            self._link(whole)

    def _link(self, newest: Path) -> None:
        link = self.path / ".last.ckpt.link"
        owned.remove_file(link, self.path)
        link.symlink_to(newest.name)
        owned.rename(link, self.last)


def _step(path: Path) -> int:
    match = NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


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
        """Take down what the next stage begins with, or that a run is over, at once or not at all."""
        write_text(self._end, json.dumps({"weights": weights.resolve().name, "steps": steps}) + "\n")
