"""Positives among the negatives: in the same row, and in other rows of the same query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedtrain.data.read.sources import Example
from embedtrain.doctor.duplicates import normalised
from embedtrain.doctor.findings import SHOWN, Finding, Level, clip
from embedtrain.doctor.rows import Sample

CHECK = "positives among the negatives"


def false_negative_findings(sample: Sample) -> Iterator[Finding]:
    """Negatives that are a positive of their own row, of their query, or the query itself.

    In a batch a text is no negative of a query that it is a positive of, if the two are equal to the letter;
    one that differs in case or space is.
    """
    examples = sample.examples
    positives = _positives(examples)
    own: list[str] = []
    near: list[str] = []
    elsewhere: list[str] = []
    query: list[str] = []
    for example in examples:
        mine, alike = set(example.positives), {normalised(text) for text in example.positives}
        asked = normalised(example.query)
        every = positives.get((example.task, asked), {})
        for negative in example.negatives:
            short = normalised(negative)
            if negative in mine:
                own.append(f"{example.where}: {clip(negative)}")
            elif short in alike:
                near.append(f"{example.where}: {clip(negative)}")
            elif short in every:
                elsewhere.append(f"{example.where}: {clip(negative)} is a positive in {every[short]}")
            elif short == asked:
                query.append(f"{example.where}: {clip(negative)}")
    wrong = "Take them out of the negatives, or out of the positives if that is the mistake."
    total = sum(len(example.negatives) for example in examples)
    yield _finding("error", own, "are a positive of their own row", wrong, total)
    yield _finding("warning", near, "are a positive of their own row but for case and space", wrong, total)
    yield _finding("warning", elsewhere, "are a positive in another row of their query", wrong, total)
    yield _finding("warning", query, "are the query itself", "Take them out of the negatives.", total)


def _positives(examples: Sequence[Example]) -> dict[tuple[str, str], dict[str, str]]:
    """(task, query) -> its positives in any row, each with the place that says so first."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for example in examples:
        if example.score is not None:
            continue
        mine = found.setdefault((example.task, normalised(example.query)), {})
        for text in example.positives:
            mine.setdefault(normalised(text), example.where)
    return found


def _finding(level: Level, found: list[str], what: str, cure: str, total: int) -> Finding:
    return Finding(
        CHECK,
        level if found else "ok",
        f"{len(found):,} of {total:,} negatives {what}",
        cure if found else "",
        tuple(found[:SHOWN]),
        {"negatives": len(found), "of": total},
    )
