"""weights.json of a run: its published weights against those that it began with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from embedtrain import console
from embedtrain.data.read.sources import Example
from embedtrain.data.stores.memory import some_rows
from embedtrain.evaluation.mteb_private import same_random_state
from embedtrain.files.measured.weights import Rows, Weights, read_weights, write_weights
from embedtrain.model.encoder import Encoder
from embedtrain.model.moved import adapters_moved, moved_blocks, moved_cuts
from embedtrain.run.run import Run
from embedtrain.types import SubModel

ROWS, NEGATIVES = 32, 3  # training rows whose vectors are compared, and negatives of each


def take_down_moved(run: Run) -> None:
    """Write weights.json, unless it is there already of these weights.

    It needs the starting weights a second time in memory; where there is no room, a line says so.
    """
    folder, trained = run.folder.path, run.encoder
    there = read_weights(folder)
    if there is not None and (there.run, there.step) == (run.settings.name, run.final_step):
        return
    if not _fits(trained):
        console.log("weights.json is not written: no memory for the starting weights beside the trained ones")
        return
    with same_random_state():
        before, rows = run.starting_encoder(), some_rows_of(run)
        before.rotation = trained.rotation  # or axes, not weights, would be compared
        queries = list(dict.fromkeys(str(row.query) for row in rows))
        weights = Weights(
            run.settings.name,
            run.final_step,
            moved_blocks(before, trained),
            moved_cuts(before, trained, queries, run.sub_models),
            len(queries),
            adapters_moved(trained),
            _nearest(before, trained, rows),
        )
    write_weights(folder, weights)


def some_rows_of(run: Run) -> list[Example]:
    """Training rows of every dataset, whose queries are texts."""
    datasets = run.stage.data.datasets
    each = -(-ROWS // max(1, len(datasets)))
    rows = (row for item in datasets for row in islice(some_rows(item.store), each))
    return [row for row in rows if isinstance(row.query, str)]


def _nearest(before: Encoder, after: Encoder, rows: Sequence[Example]) -> Rows | None:
    """Whether positives are nearest, before and after; None where rows have no positives that are texts."""
    pairs = [row for row in rows if row.positives and isinstance(row.positives[0], str)]
    if not pairs:
        return None
    first, last = (share_nearest(encoder, pairs) for encoder in (before, after))
    return Rows(len(pairs), first, last)


def share_nearest(encoder: Encoder, rows: Sequence[Example]) -> float:
    """The share of rows whose positive is nearer than its first negatives and the positives of other rows.

    Other rows' texts that are a positive of the row too are left out.
    """
    whole = SubModel(encoder.num_layers, encoder.width)
    own = [str(row.positives[0]) for row in rows]
    texts = list(dict.fromkeys([*own, *(str(text) for row in rows for text in row.negatives[:NEGATIVES])]))
    query = encoder.encode([str(row.query) for row in rows], (whole.layer,), "query").at(whole)
    scores = query @ encoder.encode(texts, (whole.layer,), "document").at(whole).T  # (rows, texts)
    place, nearest = {text: number for number, text in enumerate(texts)}, 0
    for row, positive, each in zip(rows, own, scores.tolist(), strict=True):
        others = {*own, *map(str, row.negatives[:NEGATIVES])} - set(map(str, row.positives))
        nearest += each[place[positive]] > max((each[place[text]] for text in others), default=-2.0)
    return nearest / len(rows)


def _fits(encoder: Encoder) -> bool:
    size = sum(item.numel() * item.element_size() for item in encoder.backbone.model.parameters())
    try:
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        return 1.2 * size < 1024 * int(facts["MemAvailable"].split()[0])  # caches of files count as free
    except (ValueError, OSError, KeyError):  # no such number on this system
        return True
