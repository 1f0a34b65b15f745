"""Training texts that are also in what the run is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from embedtrain.content_ids import content_id
from embedtrain.doctor.duplicates import normalised
from embedtrain.doctor.findings import SHOWN, Finding, clip, finding, graded, percent
from embedtrain.doctor.rows import Sample, parts_of
from embedtrain.evaluation.catalogue.offline import settle_offline
from embedtrain.evaluation.catalogue.tasks import find_tasks
from embedtrain.evaluation.catalogue.texts import Placed, placed_texts
from embedtrain.types import InputError

CHECK = "overlap with evaluation"


def contamination_findings(
    sample: Sample,
    names: Sequence[str],
    data_root: str | None,
    languages: Sequence[str] | None,
    most: float,
) -> Iterator[Finding]:
    """For each table of each evaluated split: the share of its texts that training sees. Asks no internet.

    Texts are equal but for case and space. Documents are compared with their titles, as mteb joins them.

    Args:
        sample: training rows.
        names: `evaluation.tasks`.
        data_root: `evaluation.data_root`.
        languages: `evaluation.languages`.
        most: share above which it is a warning.
    """
    if not names:
        yield finding(CHECK, "note", "nothing is evaluated", "Say evaluation.tasks to know whether it helps.")
        return
    places = training_places(sample)
    for name in names:
        try:
            tasks = find_tasks([name], data_root, languages)
        except InputError as error:
            yield finding(CHECK, "error", f"{name}: {error}", "The run would stop here.")
            continue
        for task in tasks:
            title = task.metadata.name
            try:
                (settled,) = settle_offline([task], None if data_root is None else Path(data_root))
                tables = placed_texts(settled, set(settled.eval_splits))
            except InputError as error:
                yield finding(CHECK, "warning", f"{title}: its data cannot be looked at here: {error}")
                continue
            yield overlap_finding(title, tables, places, most, whole=sample.whole)


def training_places(sample: Sample) -> dict[int, str]:
    """`content_id` of every normalised training text -> the part and place where it came first."""
    places: dict[int, str] = {}
    for example in sample.examples:
        for part, texts in parts_of(example).items():
            for text in texts:
                places.setdefault(content_id(normalised(text)), f"{part} of {example.where}")
    return places


def overlap_finding(
    task: str, tables: Sequence[Placed], places: Mapping[int, str], most: float, *, whole: bool = True
) -> Finding:
    """What one task shares with training.

    Args:
        task: its name.
        tables: its texts; those without a text are left out.
        places: as of `training_places`.
        most: share of a table above which it is a warning.
        whole: whether `places` are of all training rows.
    """
    shares, examples, facts, worst = [], [], {}, 0.0
    for place, texts in (table for table in tables if table.texts):
        ids = {text: content_id(normalised(text)) for text in texts}
        common = [text for text in texts if ids[text] in places]
        worst = max(worst, len(common) / len(texts))
        shares.append(f"{place} {percent(len(common), len(texts))} ({len(common):,} of {len(texts):,})")
        facts[place] = {"common": len(common), "of": len(texts)}
        examples += [f"{place}: {clip(text)} is the {places[ids[text]]}" for text in common[:SHOWN]]
    sampled = "" if whole else ", by a sample of the training rows: at least"
    return finding(
        CHECK,
        graded(worst, most),
        f"{task}{sampled}: training has seen " + ", ".join(shares),
        "Leave these rows out of training, or do not report this task as unseen.",
        examples,
        **facts,
    )
