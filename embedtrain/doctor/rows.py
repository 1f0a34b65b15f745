"""What the run will train on: rows to look at, the share of each dataset, and rows that cannot be used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from embedtrain.data.order.mixture import Dataset
from embedtrain.data.order.run_plan import Part
from embedtrain.data.permutation import Permutation
from embedtrain.data.read.sources import Example
from embedtrain.data.stores.memory import MemoryRows
from embedtrain.doctor.findings import Finding, Level, finding, percent, spread

CHECK = "rows"
MUCH = 0.1  # share of rows an epoch leaves out
OFTEN = 20  # epochs
READ = 1_024  # rows taken together


class Sample(NamedTuple):
    """Rows that were looked at."""

    examples: Sequence[Example]
    whole: bool  # whether they are all there are

    @property
    def said(self) -> str:
        """What messages call them."""
        return f"{len(self.examples):,} {'rows' if self.whole else 'sampled rows'}"


def parts_of(example: Example) -> dict[str, tuple[str, ...]]:
    """The texts of a row by what they are in it."""
    return {"query": (example.query,), "positive": example.positives, "negative": example.negatives}


def sampled(datasets: Sequence[Dataset], most: int) -> Sample:
    """At most `most` rows, dealt evenly to the datasets; those that have fewer leave theirs to the others."""
    shares = dealt([len(item.store) for item in datasets], most)
    examples: list[Example] = []
    for item, share in zip(datasets, shares, strict=True):
        store = item.store
        if isinstance(store, MemoryRows) and share == len(store):
            examples += store.examples
            continue
        order = Permutation(len(store), (0, 0))
        for start in range(0, share, READ):
            examples += store.take(order(np.arange(start, min(start + READ, share))).tolist())
    return Sample(examples, sum(shares) == sum(len(item.store) for item in datasets))


def dealt(sizes: Sequence[int], most: int) -> list[int]:
    """`most` dealt evenly, none more than its size; small ones leave their rest to the others."""
    shares, left = [0] * len(sizes), most
    ordered = sorted(range(len(sizes)), key=lambda place: sizes[place])
    for done, place in enumerate(ordered):
        shares[place] = min(sizes[place], left // (len(sizes) - done))
        left -= shares[place]
    return shares


def dataset_findings(parts: Sequence[Part], sample: Sample) -> Iterator[Finding]:
    """One a dataset: rows, kinds, negatives, epochs, share of the run."""
    seen = sum(part.seen for part in parts)
    by_task: dict[str, list[Example]] = {}
    for example in sample.examples:
        by_task.setdefault(example.task, []).append(example)
    for part in parts:
        own = by_task.get(part.task, [])
        scored = sum(example.score is not None for example in own)
        negatives = spread([len(example.negatives) for example in own] or [0])
        level: Level = "ok"
        cure = ""
        if not part.seen:
            level, cure = "warning", "Its share of the run is too small: raise its weight, or the steps."
        elif part.left_out > MUCH * part.rows:
            level, cure = "note", "Lower batch_size so that more of an epoch's rows fill batches."
        elif part.epochs > OFTEN:
            level, cure = "note", "Few rows seen that often are learnt by heart: fewer epochs, or more rows."
        batches = "in mixed batches" if part.batches is None else f"in {part.batches:,} batches"
        yield finding(
            CHECK,
            level,
            f"{part.task}: {part.rows:,} rows, {percent(part.seen, seen)} of the run {batches} of "
            f"{part.batch_size}, {part.epochs:.2f} epochs, {part.left_out:,} rows left out of an epoch; "
            f"{'scored' if scored else 'unscored'}, negatives a row {negatives['min']:g} / "
            f"{negatives['median']:g} / {negatives['max']:g} (least, median, most)",
            cure,
            **part._asdict(),
            epochs=part.epochs,
            looked_at=len(own),
            scored=scored,
            negatives=negatives,
        )


def length_finding(parts: Sequence[Part], steps: int, accumulate: int) -> Finding:
    """How long the run is."""
    rows, seen = sum(part.rows for part in parts), sum(part.seen for part in parts)
    each = "" if accumulate == 1 else f" of {accumulate} batches"
    message = (
        f"{steps:,} optimiser steps{each}, {seen:,} rows in all, {seen / rows:.2f} times each of {rows:,}"
    )
    return finding(CHECK, "ok", message, steps=steps, accumulate=accumulate, rows=rows, seen=seen)


def bad_row_finding(reported: Sequence[Mapping[str, object]], policy: str) -> Finding:
    """The rows that cannot be trained on, by reason.

    Args:
        reported: lines of the report of bad rows: "where", "reason", "rows".
        policy: `data.on_bad_row` of the run; "error" would stop it at the first of them.
    """
    kinds: Counter[str] = Counter()
    for entry in reported:
        kinds[reason_kind(str(entry["where"]), str(entry["reason"]))] += int(str(entry["rows"]))
    total = kinds.total()
    if not total:
        return finding(CHECK, "ok", "no row is damaged", bad_rows=0)
    listed = "; ".join(f"{count:,} x {kind}" for kind, count in kinds.most_common())
    stops = policy == "error"
    return finding(
        CHECK,
        "error" if stops else "warning",
        f"{total:,} rows cannot be trained on: {listed}",
        "Repair them; or on_bad_row=skip leaves them out, on_bad_row=quarantine also keeps their text."
        if stops
        else "They are left out. Repair them if they matter.",
        (str(entry["reason"]) for entry in reported),
        bad_rows=total,
        reasons=dict(kinds),
    )


def reason_kind(where: str, reason: str) -> str:
    """A reason without its place, its numbers and the texts that it quotes."""
    kind = reason.removeprefix(where).lstrip(": ")
    return re.sub(r"'[^']*'|\"[^\"]*\"|-?\d[\d.,]*", "…", kind)[:120]
