"""Rows that say the same twice, and positives among the negatives of a row or of its query."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

from embedtrain.data.read.sources import Example
from embedtrain.doctor.findings import Finding, Level, clip, finding, graded, percent
from embedtrain.doctor.rows import Sample

CHECK = "duplicates"
NEGATIVES = "positives among the negatives"
FEW = 0.01  # share of rows


def normalised(text: str) -> str:
    """A text without the differences in case and space."""
    return " ".join(text.casefold().split())


def duplicate_findings(sample: Sample) -> Iterator[Finding]:
    """Equal rows, rows that differ in case and space, several rows of a query, rows of one text twice."""
    examples = sample.examples
    exact = _repeated((_row(example), example) for example in examples)
    alike = _repeated((_row(example, near=True), example) for example in examples)
    known = {id(example) for example, _ in exact}
    yield _same_rows(exact, "repeat another row exactly", sample)
    near = [pair for pair in alike if id(pair[0]) not in known]
    yield _same_rows(near, "repeat another row but for case and space", sample)
    queries = _repeated(((example.task, example.query), example) for example in examples)
    several = len({(example.task, example.query) for example in examples})
    yield finding(
        CHECK,
        "note" if queries else "ok",
        f"{several:,} distinct queries in {sample.said}; {len(queries):,} rows repeat the query of another",
        "Their labels are shared where they meet in a batch. One row with all its positives says the same.",
        _shown(queries),
        queries=several,
        rows_of_an_earlier_query=len(queries),
    )
    yield _itself(sample)


def _repeated(keyed: Iterable[tuple[Hashable, Example]]) -> list[tuple[Example, Example]]:
    """Rows that repeat an earlier one, each with the first of its key."""
    first: dict[Hashable, Example] = {}
    pairs: list[tuple[Example, Example]] = []
    for key, example in keyed:
        if key in first:
            pairs.append((example, first[key]))
        first.setdefault(key, example)
    return pairs


def _row(example: Example, *, near: bool = False) -> tuple[Hashable, ...]:
    texts = (example.query, *example.positives, "", *example.negatives)  # no text is empty
    return (example.task, example.score, *(map(normalised, texts) if near else texts))


def _same_rows(repeats: list[tuple[Example, Example]], what: str, sample: Sample) -> Finding:
    rows, count = len(repeats), len(sample.examples)
    return finding(
        CHECK,
        graded(rows, FEW * count),
        f"{rows:,} of {sample.said} {what} ({percent(rows, count)})",
        "Keep one of each: repeated rows weigh more, and land on both sides of a validation split.",
        _shown(repeats),
        rows=rows,
        of=count,
    )


def _shown(pairs: list[tuple[Example, Example]]) -> Iterator[str]:
    return (f"{one.where} = {other.where}: {clip(one.query)}" for one, other in pairs)


def _itself(sample: Sample) -> Finding:
    """Rows without a score whose positive is their query: their loss is near 0 from the first step."""
    unscored = [example for example in sample.examples if example.score is None]
    equal = [
        example for example in unscored if normalised(example.query) in map(normalised, example.positives)
    ]
    return finding(
        CHECK,
        "warning" if equal else "ok",
        f"{len(equal):,} rows have their query as a positive ({percent(len(equal), len(unscored))})",
        "Leave them out: a text is similar to itself whatever the weights are.",
        (f"{example.where}: {clip(example.query)}" for example in equal),
        rows=len(equal),
        of=len(unscored),
    )


def false_negative_findings(sample: Sample) -> Iterator[Finding]:
    """Negatives that are a positive of their own row, of their query, or the query itself.

    In a batch a text is no negative of a query that it is a positive of, if the two are equal to the letter;
    one that differs in case or space is.
    """
    examples = sample.examples
    positives = _positives(examples)
    own, near, elsewhere, query = (list[str]() for _ in range(4))
    for example in examples:
        mine, alike = set(example.positives), {normalised(text) for text in example.positives}
        asked = normalised(example.query)
        every = positives.get((example.task, asked), {})
        for negative in example.negatives:
            short = normalised(negative)
            shown = f"{example.where}: {clip(negative)}"
            if negative in mine:
                own.append(shown)
            elif short in alike:
                near.append(shown)
            elif short in every:
                elsewhere.append(f"{shown} is a positive in {every[short]}")
            elif short == asked:
                query.append(shown)
    wrong = "Take them out of the negatives, or out of the positives if that is the mistake."
    total = sum(len(example.negatives) for example in examples)
    yield _wrong("error", own, "are a positive of their own row", wrong, total)
    yield _wrong("warning", near, "are a positive of their own row but for case and space", wrong, total)
    yield _wrong("warning", elsewhere, "are a positive in another row of their query", wrong, total)
    yield _wrong("warning", query, "are the query itself", "Take them out of the negatives.", total)


def _positives(examples: Sequence[Example]) -> dict[tuple[str, str], dict[str, str]]:
    """(task, query) -> its positives in any row, each with the place that says so first."""
    places: dict[tuple[str, str], dict[str, str]] = {}
    for example in examples:
        for text in example.positives if example.score is None else ():
            mine = places.setdefault((example.task, normalised(example.query)), {})
            mine.setdefault(normalised(text), example.where)
    return places


def _wrong(level: Level, places: list[str], what: str, cure: str, total: int) -> Finding:
    message = f"{len(places):,} of {total:,} negatives {what}"
    return finding(
        NEGATIVES, level if places else "ok", message, cure, places, negatives=len(places), of=total
    )
