"""All checks of one run, in the order of what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
from embedtrain.settings.commands import ExamineSettings

PROBED = 64  # texts


class Conditions(NamedTuple):
    """What the checks need to know beside the run."""

    settings: ExamineSettings
    scratch: Path  # a folder of its own
    bad_rows: Sequence[Mapping[str, object]] = ()  # lines of the report
    memory: int = 0  # bytes of the device
    resident: int = 0  # bytes that the process held on it once the run was built
    sharing: int = 1  # ranks that share them


Progress = Callable[[str, int, int], object]  # the check, and how many of 1 are done


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
