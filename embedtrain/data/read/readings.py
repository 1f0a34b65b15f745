"""Which field of a row is what: names decide, and position where that is one reading alone.

A reading is chosen for a set of names, at the first row that has it. Where the first row of a data set was
read by position, the others are read like it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from embedtrain.data.read.fields import missing
from embedtrain.data.read.forms import (
    CHAT,
    CLASS,
    COUNTED,
    FACT,
    FORMS,
    INSTRUCTION,
    NEGATIVE,
    NUMBER,
    NUMBERED,
    OTHERS,
    POSITIVE,
    QUERY,
    SCORE,
    STEMS,
    Reading,
    Row,
    plain,
)
from embedtrain.types import InputError


def reading_of(where: str, row: Row, columns: Mapping[str, str], *, guess: bool) -> Reading:
    """How a row with such names is read.

    Args:
        where: its place.
        row: the first with these names.
        columns: our field -> name, as the user says.
        guess: whether columns may be read by position.

    Raises:
        InputError: naming the field that is missing, or the columns that could be several things.
    """
    taken = set(columns.values())
    names = [name for name in row if name not in taken]
    by_plain = {plain(name): name for name in reversed(names)}
    scalars: dict[str, str] = {}
    for field, known in (("query", QUERY), ("score", SCORE), ("instruction", INSTRUCTION)):
        own_score_only = field == "score" and "positive" in columns
        found = _first(where, field, (known[:1] if own_score_only else known), by_plain, row)
        if found is not None:
            scalars[field] = found
    asked = "query" not in scalars and "positive" not in columns and set(CHAT) & by_plain.keys()
    further = {field: by_plain[field] for field in OTHERS if field in by_plain}
    scalars |= {"query" if asked and field == "prompt" else field: name for field, name in further.items()}
    positives = _documents(where, "positive", POSITIVE, by_plain, row)
    negatives = _documents(where, "negative", NEGATIVE, by_plain, row)
    if columns:
        given = {field: name for field, name in columns.items() if name in row}
        positives = _given(given, "positive", positives)
        negatives = _given(given, "negative", negatives)
        scalars |= {field: name for field, name in given.items() if field[:5] not in ("posit", "negat")}
        if "text" in columns and not {"query", "positive", "positives"} & columns.keys():
            return Reading(_only(scalars, "text", "task"), kind="text")
    name = next((form.name for form in FORMS if any(mark in by_plain for mark in form.marks)), "")
    if "set" in by_plain and "query" not in scalars and not positives:
        return Reading({"query": by_plain["set"], **_only(scalars, "task")}, kind="set", name=name)
    if "query" in scalars and positives:
        return Reading(scalars, positives, negatives, name=name)
    if "query" not in scalars and not positives and "text" in by_plain:
        return Reading({"text": by_plain["text"], **_only(scalars, "task")}, kind="text")
    if not positives and (family := _family(_texts(row, scalars, negatives))):
        query, positive, *others = [scalars["query"], *family] if "query" in scalars else family
        scalars = {**scalars, "query": query}
        return Reading(scalars, (positive,), (*others, *negatives), name=name or "numbered columns")
    if not guess or columns:
        field = "positive" if "query" in scalars else "query"
        raise missing(where, columns.get(field, field), row, _cure(row))
    return _by_position(where, row, scalars, positives, negatives, name)


def _by_position(
    where: str,
    row: Row,
    scalars: dict[str, str],
    positives: tuple[str, ...],
    negatives: tuple[str, ...],
    form: str,
) -> Reading:
    """The only reading of columns whose names do not say it."""
    texts = _texts(row, scalars, (*positives, *negatives))
    nothing = "query" not in scalars and not positives
    if nothing and len(texts) > 1 and all(re.fullmatch(r"column_\d+", name) for name in row):
        query, positive, *others = texts
        if (last := list(row)[-1]) not in texts and _is_number(row[last]):
            scalars["score"] = last
        return Reading({**scalars, "query": query}, (positive,), tuple(others), guessed=True, name=form)
    if nothing and len(texts) == 1 and not negatives:
        return Reading({"text": texts[0], **_only(scalars, "task")}, kind="text", guessed=True)
    wanted = ["query"] * ("query" not in scalars) + ["positive"] * (not positives)
    if nothing and len(texts) > 2:
        raise InputError(
            f"{where}: which of the columns {', '.join(map(repr, texts[:8]))} is the query, and which its "
            f"positive? Their names do not say it.{_cure(row, texts)}"
        )
    if len(texts) != len(wanted):
        raise missing(where, wanted[0], row, _cure(row))
    named = dict(zip(wanted, texts, strict=True))
    positives = (named.pop("positive"),) if "positive" in named else positives
    return Reading({**scalars, **named}, positives, negatives, guessed=True, name=form)


def _texts(row: Row, scalars: Mapping[str, str], documents: Sequence[str]) -> list[str]:
    """The columns of texts that are nothing yet, and neither facts about the row nor names of classes."""
    used = {*scalars.values(), *documents}
    return [
        name
        for name, value in row.items()
        if name not in used and _is_text(value) and not FACT.fullmatch(name) and not CLASS.fullmatch(name)
    ]


def _first(
    where: str, field: str, groups: Sequence[tuple[str, ...]], by_plain: Mapping[str, str], row: Row
) -> str | None:
    """The one name of a field; InputError where two are as good."""
    for group in groups:
        found = [by_plain[name] for name in group if name in by_plain]
        if len(found) > 1 and field == "query":
            raise _several(where, field, found, row)
        if found:
            return found[0]
    return None


def _documents(
    where: str, field: str, groups: Sequence[tuple[str, ...]], by_plain: Mapping[str, str], row: Row
) -> tuple[str, ...]:
    """The names of a field that may be several: negative_2 and negatives, too."""
    numbered = [
        (int(match[2]), name)
        for plain, name in by_plain.items()
        if (match := NUMBERED.fullmatch(plain)) and match[1] in STEMS[field] and match[2].isdigit()
    ]
    for group in groups:
        found = [by_plain[name] for name in group if name in by_plain]
        if group is POSITIVE[1]:  # {"text": [...], "answer_start": [...]} are spans of the context
            found = [name for name in found if not _is_span(row[name])]
        if len(found) > 1 and group is POSITIVE[1]:
            raise _several(where, field, found, row)
        if found or numbered:
            return (*found, *(name for _, name in sorted(numbered)))
    return ()


def _is_span(value: object) -> bool:
    """Whether a value says where in a context the answers are, as SQuAD does."""
    return isinstance(value, Mapping) and "answer_start" in value


def _given(given: Mapping[str, str], field: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(given[key] for key in (field, f"{field}s") if key in given)
    return names or known


def _only(scalars: Mapping[str, str], *fields: str) -> dict[str, str]:
    return {field: scalars[field] for field in fields if field in scalars}


def _family(texts: Sequence[str]) -> list[str]:
    """sentence1, sentence2, ... in the order of their numbers, where they are the only such names."""
    stems: dict[str, list[tuple[str, str]]] = {}
    for name in texts:
        if match := NUMBERED.fullmatch(plain(name)):
            stems.setdefault(match[1], []).append((COUNTED.get(match[2], match[2]).zfill(9), name))
    families = [members for members in stems.values() if len(members) > 1]
    return [name for _, name in sorted(families[0])] if len(families) == 1 else []


def _is_text(value: object) -> bool:
    if isinstance(value, str):
        return NUMBER.fullmatch(value) is None
    pair = (
        isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)
    )
    return pair or (isinstance(value, Mapping) and "text" in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and NUMBER.fullmatch(value) is not None)


def _several(where: str, field: str, names: Sequence[str], row: Row) -> InputError:
    return InputError(
        f"{where}: {' and '.join(map(repr, names))} could both be the {field} of the row.{_cure(row)}"
    )


def _cure(row: Row, texts: Sequence[str] = ()) -> str:
    names = list(texts) or [name for name in row if _is_text(row[name])]
    query, positive = [*names, "NAME", "NAME"][:2]
    return (
        f" Say it: 'data.columns={{query: {query}, positive: {positive}}}' (embedtrain-mine: columns=; "
        "embedtrain-merge: rename them in the probe), with the names of your rows."
    )
