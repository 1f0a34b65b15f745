"""All checks of one run, in the order of what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from embedtrain.doctor.contamination import contamination_findings
from embedtrain.doctor.duplicates import duplicate_findings
from embedtrain.doctor.false_negatives import false_negative_findings
from embedtrain.doctor.findings import Finding
from embedtrain.doctor.first_loss import loss_finding
from embedtrain.doctor.lengths import length_findings
from embedtrain.doctor.memory import estimated, memory_finding
from embedtrain.doctor.negatives import needs_vectors, negative_findings, negatives_of
from embedtrain.doctor.patient import Look, Patient, looks, seen
from embedtrain.doctor.probes import probe_findings
from embedtrain.doctor.rows import bad_row_finding, dataset_findings, length_finding
from embedtrain.doctor.sampling import Sample, sampled
from embedtrain.doctor.speed import measured, speed_finding

PROBED = 64  # texts


class Circumstances(NamedTuple):
    """What the doctor is told beside the run."""

    evaluation: Mapping[str, Any]  # tasks, data_root, languages
    scratch: Path  # a folder of its own
    bad_rows: Sequence[Mapping[str, object]] = ()  # lines of the report
    on_bad_row: str = "error"
    workers: int = 0
    memory: int = 0  # bytes of the device
    resident: int = 0  # bytes that the process held on it once the run was built
    sharing: int = 1  # ranks that share them
    rows: int = 100_000  # most that are looked at
    batch_rows: int = 64  # most rows of a batch that are encoded
    overlap: float = 0.01  # share of evaluation texts in training that is a warning


Progress = Callable[[str, float], None]  # what is done, seconds it took


def examine(patient: Patient, told: Circumstances, progress: Progress) -> Iterator[Finding]:
    """The findings of all checks; `progress` is called as each ends."""
    begun = time.perf_counter()

    def done(name: str, found: Iterable[Finding]) -> Iterator[Finding]:
        nonlocal begun
        yield from found
        now = time.perf_counter()
        progress(name, now - begun)
        begun = now

    sample = sampled(patient.data.datasets, told.rows)
    yield from done("rows", _rows(patient, told, sample))
    yield from done("duplicates", duplicate_findings(sample))
    yield from done("positives among the negatives", false_negative_findings(sample))
    encoder, wanted = patient.encoder, told.evaluation
    yield from done("lengths", length_findings(sample, encoder.process, encoder.backbone.max_positions))
    overlap = contamination_findings(
        sample, wanted["tasks"], wanted["data_root"], wanted["languages"], told.overlap
    )
    yield from done("overlap with evaluation", overlap)
    yield from done("model", probe_findings(patient, _texts(sample), told.scratch))
    every = looks(patient, told.batch_rows)
    yield from done("batches", _batches(patient, every))
    yield from done("memory and speed", _step(patient, told, every))


def _rows(patient: Patient, told: Circumstances, sample: Sample) -> Iterator[Finding]:
    parts = patient.data.parts
    yield bad_row_finding(told.bad_rows, told.on_bad_row)
    yield length_finding(parts, patient.data.total_steps // patient.accumulate, patient.accumulate)
    yield from dataset_findings(parts, sample)
    if not sample.whole:
        yield Finding(
            "rows", "note", f"what follows is of {sample.said}", "doctor.rows=N looks at more.",
            facts={"sampled": len(sample.examples)},
        )  # fmt: skip


def _batches(patient: Patient, every: Sequence[Look]) -> Iterator[Finding]:
    """Negatives and first loss of the first batch of each dataset."""
    for look in every:
        vectors = seen(patient, look)
        scores = look.whole.links.scores
        contrasted = scores is None or bool(scores.isnan().all())
        negatives = None
        if contrasted:
            negatives = negatives_of(patient, look, vectors if needs_vectors(patient) else None)
            yield from negative_findings(patient, look, negatives)
            if negatives is not None and not needs_vectors(patient) and look.cut:
                negatives = negatives_of(patient, look, vectors)  # of the rows that the loss is of
        yield loss_finding(patient, vectors, negatives)


def _step(patient: Patient, told: Circumstances, every: Sequence[Look]) -> Iterator[Finding]:
    patient.encoder.train()
    try:
        yield memory_finding(patient, estimated(patient, every, told.resident), told.memory, told.sharing)
        speed = measured(patient, max(every, key=lambda look: int(look.batch.inputs.mask.sum())))
        yield speed_finding(patient, every, speed, patient.data.parts, told.workers)
    finally:
        patient.encoder.eval()


def _texts(sample: Sample) -> list[str]:
    """Different texts, spread over the sample."""
    step = max(1, len(sample.examples) // PROBED)
    texts: dict[str, None] = {}
    for example in sample.examples[::step]:
        texts |= dict.fromkeys((example.query, example.positives[0]))
    return list(texts)[:PROBED]
