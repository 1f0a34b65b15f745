"""A run, built as its config says in a folder of its own, and all checks of it in the order of their cost."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import torch

from embedtrain.console import Progress
from embedtrain.doctor.built_run import BuiltRun, FirstBatch, encoded, first_batches
from embedtrain.doctor.contamination import contamination_findings
from embedtrain.doctor.duplicates import duplicate_findings, false_negative_findings
from embedtrain.doctor.findings import Finding, finding
from embedtrain.doctor.first_loss import loss_finding
from embedtrain.doctor.lengths import length_findings
from embedtrain.doctor.memory import estimated, memory_finding
from embedtrain.doctor.negatives import needs_vectors, negative_findings, negatives_of
from embedtrain.doctor.probes import probe_findings
from embedtrain.doctor.rows import Sample, bad_row_finding, dataset_findings, length_finding, sampled
from embedtrain.doctor.speed import measured, speed_finding
from embedtrain.files.run_folder import RunFolder
from embedtrain.run.run import Run
from embedtrain.settings.commands import ExamineSettings
from embedtrain.settings.stages import stages_of
from embedtrain.training.steps.contrastive.step import Contrastive
from embedtrain.types import InputError

PROBED = 64  # texts


class Conditions(NamedTuple):
    """What the checks need to know beside the run."""

    settings: ExamineSettings
    scratch: Path  # a folder of its own
    bad_rows: Sequence[Mapping[str, object]] = ()  # lines of the report
    memory: int = 0  # bytes of the device
    resident: int = 0  # bytes that the process held on it once the run was built
    sharing: int = 1  # ranks that share them


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
    there = folder.config.exists() or folder.model.exists()
    reason = folder.stranger() if there else None
    if reason is not None and (settings.overwrite or not folder.config.exists()):
        return Finding("run", "error", f"{folder.path} {reason}", "Use another name=..., or move it away.")
    if folder.is_finished and not settings.overwrite:
        cure = "Use another name=..." + (", or overwrite=true to replace it." if reason is None else ".")
        return Finding("run", "error", f"{folder.path} holds a finished run", cure)
    if there and not settings.overwrite:
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


def examine(run: BuiltRun, conditions: Conditions, progress: Progress) -> Iterator[Finding]:
    """The findings of all checks; `progress` is called as each begins and ends."""

    def done(name: str, findings: Iterable[Finding]) -> Iterator[Finding]:
        progress(name, 0, 1)
        yield from findings
        progress(name, 1, 1)

    wanted, limits = conditions.settings.evaluation, conditions.settings.doctor
    sample = sampled(run.data.datasets, limits.rows)
    yield from done("rows", _rows(run, conditions, sample))
    yield from done("duplicates", duplicate_findings(sample))
    yield from done("positives among the negatives", false_negative_findings(sample))
    encoder = run.encoder
    yield from done("lengths", length_findings(sample, encoder.process, encoder.backbone.max_positions))
    overlap = contamination_findings(sample, wanted.tasks, wanted.data_root, wanted.languages, limits.overlap)
    yield from done("overlap with evaluation", overlap)
    yield from done("model", probe_findings(run, _texts(sample), conditions.scratch))
    every = first_batches(run, limits.batch_rows)
    yield from done("batches", _batches(run, every))
    yield from done("memory and speed", _step(run, conditions, every))


def _rows(run: BuiltRun, conditions: Conditions, sample: Sample) -> Iterator[Finding]:
    parts = run.data.parts
    yield bad_row_finding(conditions.bad_rows, conditions.settings.data.on_bad_row)
    yield length_finding(parts, run.data.total_steps // run.accumulate, run.accumulate)
    yield from dataset_findings(parts, sample)
    if not sample.whole:
        said, cure = f"what follows is of {sample.said}", "doctor.rows=N looks at more."
        yield finding("rows", "note", said, cure, sampled=len(sample.examples))


def _batches(run: BuiltRun, every: Sequence[FirstBatch]) -> Iterator[Finding]:
    """Negatives and first loss of the first batch of each dataset."""
    for first in every:
        vectors = encoded(run, first)
        scores = first.whole.links.scores
        contrasted = scores is None or bool(scores.isnan().all())
        negatives = None
        if contrasted:
            negatives = negatives_of(run, first, vectors if needs_vectors(run) else None)
            yield from negative_findings(run, first, negatives)
            if negatives is not None and not needs_vectors(run) and first.cut:
                negatives = negatives_of(run, first, vectors)  # of the rows that the loss is of
        yield loss_finding(run, vectors, negatives)


def _step(run: BuiltRun, conditions: Conditions, every: Sequence[FirstBatch]) -> Iterator[Finding]:
    run.encoder.train()
    try:
        need = estimated(run, every, conditions.resident)
        yield memory_finding(run, need, conditions.memory, conditions.sharing)
        speed = measured(run, max(every, key=lambda first: int(first.batch.inputs.mask.sum())))
        yield speed_finding(run, every, speed, run.data.parts, conditions.settings.data.num_workers)
    finally:
        run.encoder.eval()


def _texts(sample: Sample) -> list[str]:
    """Different texts, spread over the sample."""
    step = max(1, len(sample.examples) // PROBED)
    texts: dict[str, None] = {}
    for example in sample.examples[::step]:
        texts |= dict.fromkeys((example.query, example.positives[0]))
    return list(texts)[:PROBED]
