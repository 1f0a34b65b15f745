"""What the run will train on: rows of each dataset, their share of the run, and rows that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from embedtrain.data.order.run_plan import Part
from embedtrain.data.read.sources import Example
from embedtrain.doctor.findings import SHOWN, Finding, percent, spread
from embedtrain.doctor.sampling import Sample

CHECK = "rows"
MUCH = 0.1  # share of rows an epoch leaves out
OFTEN = 20  # epochs


def dataset_findings(parts: Sequence[Part], sample: Sample) -> Iterator[Finding]:
    """One a dataset: rows, kinds, negatives, epochs, share of the run.

    Args:
        parts: what each dataset gives to the run.
        sample: some rows of all.
    """
    seen = sum(part.seen for part in parts)
    by_task: dict[str, list[Example]] = {}
    for example in sample.examples:
        by_task.setdefault(example.task, []).append(example)
    for part in parts:
        own = by_task.get(part.task, [])
        scored = sum(example.score is not None for example in own)
        negatives = spread([len(example.negatives) for example in own] or [0])
        level, cure = "ok", ""
        if not part.seen:
            level, cure = "warning", "Its share of the run is too small: raise its weight, or the steps."
        elif part.left_out > MUCH * part.rows:
            level, cure = "note", "Lower batch_size so that more of an epoch's rows fill batches."
        elif part.epochs > OFTEN:
            level, cure = "note", "Few rows seen that often are learnt by heart: fewer epochs, or more rows."
        batches = "in mixed batches" if part.batches is None else f"in {part.batches:,} batches"
        yield Finding(
            CHECK,
            level,  # type: ignore[arg-type]
            f"{part.task}: {part.rows:,} rows, {percent(part.seen, seen)} of the run {batches} of "
            f"{part.batch_size}, {part.epochs:.2f} epochs, {part.left_out:,} rows left out of an epoch; "
            f"{'scored' if scored else 'unscored'}, negatives a row {negatives['min']:g} / "
            f"{negatives['median']:g} / {negatives['max']:g} (least, median, most)",
            cure,
            facts=part._asdict()
            | {"epochs": part.epochs, "looked_at": len(own), "scored": scored, "negatives": negatives},
        )


def length_finding(parts: Sequence[Part], steps: int, accumulate: int) -> Finding:
    """How long the run is."""
    rows, seen = sum(part.rows for part in parts), sum(part.seen for part in parts)
    each = "" if accumulate == 1 else f" of {accumulate} batches"
    return Finding(
        CHECK,
        "ok",
        f"{steps:,} optimiser steps{each}, {seen:,} rows in all, {seen / rows:.2f} times each of {rows:,}",
        facts={"steps": steps, "accumulate": accumulate, "rows": rows, "seen": seen},
    )


def bad_row_finding(reported: Sequence[Mapping[str, object]], policy: str) -> Finding:
    """The rows that cannot be trained on, by reason.

    Args:
        reported: lines of the report of bad rows: "where", "reason", "rows".
        policy: `data.on_bad_row` of the run; "error" would stop it at the first of them.
    """
    kinds: dict[str, int] = {}
    for entry in reported:
        kind = reason_kind(str(entry["where"]), str(entry["reason"]))
        kinds[kind] = kinds.get(kind, 0) + int(str(entry["rows"]))
    total = sum(kinds.values())
    if not total:
        return Finding(CHECK, "ok", "no row is damaged", facts={"bad_rows": 0})
    listed = "; ".join(
        f"{count:,} x {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])
    )
    stops = policy == "error"
    return Finding(
        CHECK,
        "error" if stops else "warning",
        f"{total:,} rows cannot be trained on: {listed}",
        "Repair them; or on_bad_row=skip leaves them out, on_bad_row=quarantine also keeps their text."
        if stops
        else "They are left out. Repair them if they matter.",
        tuple(str(entry["reason"]) for entry in reported[:SHOWN]),
        {"bad_rows": total, "reasons": kinds},
    )


def reason_kind(where: str, reason: str) -> str:
    """A reason without its place, its numbers and the texts that it quotes."""
    kind = reason.removeprefix(where).lstrip(": ")
    return re.sub(r"'[^']*'|\"[^\"]*\"|-?\d[\d.,]*", "…", kind)[:120]
