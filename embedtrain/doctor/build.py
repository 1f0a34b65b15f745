"""A run as its config says, built in a folder of its own, and examined."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from embedtrain.console import Progress
from embedtrain.doctor.built_run import BuiltRun
from embedtrain.doctor.examine import Conditions, examine
from embedtrain.doctor.findings import Finding
from embedtrain.files.run_folder import RunFolder
from embedtrain.run.run import Run
from embedtrain.settings.commands import ExamineSettings
from embedtrain.settings.stages import stages_of
from embedtrain.training.steps.contrastive.step import Contrastive
from embedtrain.types import InputError


def findings_of(settings: ExamineSettings, scratch: Path) -> list[Finding]:
    """All findings. A run that cannot be built is one finding, an error."""
    findings = [state_of_folder(settings)]
    plan = logging.getLogger("embedtrain.data.order.run_plan")
    level = plan.level
    plan.setLevel(logging.WARNING)  # the report says the same
    try:
        with Progress() as progress:
            progress("rows read, run built", 0, 1)
            stages = contrastive_stages(settings)
            examined = stages.pop(next(iter(stages)))
            for name in stages:
                cure = "Examine its settings as a run of their own, on the weights that it begins with."
                said = f"stage {name} is not examined, the first contrastive stage alone is"
                findings.append(Finding("run", "note", said, cure))
            training = Run(aside(examined, scratch))
            progress("rows read, run built", 1, 1)
            run = BuiltRun.of(training.stage)
            findings += examine(run, conditions_of(training, run, examined, scratch), progress)
    except InputError as error:
        findings.append(Finding("run", "error", f"it cannot start: {error}"))
    finally:
        plan.setLevel(level)
    return findings


def contrastive_stages(settings: ExamineSettings) -> dict[str, ExamineSettings]:
    """The stages that contrast pairs by their names, each with the settings of a run of its own.

    Raises:
        InputError: if no stage does.
    """
    every = {name: cast(ExamineSettings, own) for name, own in stages_of(settings)}
    stages = {name: own for name, own in every.items() if own.step.resolve() is Contrastive}
    if not stages:
        raise InputError("the doctor examines contrastive training, and this run has another `step`")
    return stages


def aside(settings: ExamineSettings, scratch: Path) -> ExamineSettings:
    """The same run in a folder of its own, which reports all bad rows instead of one.

    The rows of streamed datasets are written where the run itself looks for them.
    """
    data = settings.data
    data = replace(
        data,
        cache=data.cache or str(Path(settings.output_root) / ".rows"),
        on_bad_row="skip" if data.on_bad_row == "error" else data.on_bad_row,
    )
    return replace(settings, output_root=str(scratch), data=data, logger=None, overwrite=False)


def state_of_folder(settings: ExamineSettings) -> Finding:
    """Whether the run's own folder is free; nothing in it is touched."""
    folder = RunFolder(settings.output_root, settings.name)
    if folder.model.exists() and not settings.overwrite:
        cure = "Use another name=..., or overwrite=true to replace it."
        return Finding("run", "error", f"{folder.path} holds a finished run", cure)
    if folder.config.exists() and not settings.overwrite:
        return Finding("run", "note", f"{folder.path} holds an unfinished run, which would be continued")
    return Finding("run", "ok", f"{folder.path} is free")


def conditions_of(training: Run, run: BuiltRun, settings: ExamineSettings, scratch: Path) -> Conditions:
    """What the checks need to know beside the run."""
    trainer, device = training.stage.trainer, run.device
    report = training.folder.path / "bad_rows" / "bad_rows.jsonl"
    lines = report.read_text("utf-8").splitlines() if report.exists() else []
    own = settings.doctor.memory_gb
    return Conditions(
        settings,
        scratch,
        [json.loads(line) for line in lines],
        memory=memory_of(device) if own is None else int(own * 2**30),
        resident=resident() if device.type == "cpu" else 0,
        sharing=trainer.num_devices if device.type == "cpu" else 1,
    )


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not say."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else 0


def memory_of(device: torch.device) -> int:
    """Bytes that a device has; of the CPU what the machine or its container has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    held = limit.read_text().strip() if limit.exists() else "max"
    return min(machine, int(held)) if held.isdigit() else machine
