"""Rows of evaluation sets as others write them: other names of columns, a list a column in one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from embedtrain.data.read.forms import SCORE, plain
from embedtrain.data.read.readings import reading_of

PAIRED = ("sts", "pairs", "bitext")
TEXTS = ("text", "texts", "sentence", "sentences", "content", "query", "question", "utterance")
LABELS = ("label", "labels", "intent", "category", "class", "cluster", "label_text")
Names = Mapping[str, str]  # our column -> theirs


def columns_of(kind: str, ours: tuple[str, ...]) -> Callable[[str, dict[str, Any]], Iterator[dict[str, Any]]]:
    """What gives the rows of a kind under our names.

    Args:
        kind: of the data set.
        ours: the names that its rows are to have.
    """
    known: dict[tuple[str, ...], Names] = {}

    def renamed(where: str, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        names = tuple(row)
        if names not in known:
            known[names] = _names(kind, ours, where, row)
        found = {our: row[their] for our, their in known[names].items()}
        lists = [value for value in found.values() if isinstance(value, list)]
        if kind == "summarization" or len(lists) < len(ours) or len({len(value) for value in lists}) != 1:
            yield row | found
        else:
            yield from (dict(zip(found, values, strict=True)) for values in zip(*lists, strict=True))

    return renamed


def _names(kind: str, ours: tuple[str, ...], where: str, row: Mapping[str, Any]) -> Names:
    """Our columns by name, where the row has them or others that mean the same."""
    absent = [name for name in ours if name not in row]
    if not absent or kind == "summarization":
        return {name: name for name in ours if name in row}
    if kind not in PAIRED:
        by_plain = {plain(name): name for name in reversed(list(row))}
        known = {"text": TEXTS, "label": LABELS}
        found = {our: next((by_plain[name] for name in known[our] if name in by_plain), None) for our in ours}
        return {our: their for our, their in found.items() if their is not None}
    example = {name: value[0] if isinstance(value, list) and value else value for name, value in row.items()}
    reading = reading_of(where, example, {}, guess=True)
    if reading.kind != "pair" or len(reading.positives) != 1:
        return {name: name for name in ours if name in row}
    degree = reading.scalars.get("score") or next(
        (name for name in row if plain(name) in SCORE[0] + SCORE[1]), None
    )
    third = {name: degree for name in ours[2:] if degree is not None}
    return {"sentence1": reading.scalars["query"], "sentence2": reading.positives[0], **third}
