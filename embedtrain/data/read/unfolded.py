"""Rows whose fields lie inside lists of objects, as rows of plain fields: chats, passages with marks, labels.

{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}     one answer
{"messages": [...], "positive_messages": [[...]], "negative_messages": [[...], ...]}         ms-swift
{"chosen": [messages], "rejected": [messages]}                                               preferences
{"query": ..., "passages": {"is_selected": [0, 1], "passage_text": [...]}}                   MS MARCO
{"query": ..., "docs": [...], "labels": [1, 0]}                                              cross-encoders
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from embedtrain.data.read.fields import documents, passage
from embedtrain.types import InputError

CHATS = ("messages", "conversations", "conversation")
ROLES, TEXTS = ("role", "from"), ("content", "value")
ASKS, ANSWERS = ("user", "human", "prompter"), ("assistant", "gpt", "model", "bot")
LISTED, MARKS = ("docs", "documents", "passages", "candidates"), ("labels", "label", "is_selected")
SELECTED = "is_selected"
Row = Mapping[str, Any]


class Unfolded(NamedTuple):
    """A row of plain fields."""

    row: Row
    said: str  # how it was read


def unfolded(where: str, row: Row) -> Unfolded | None:
    """The row as plain fields; None for one that has such already.

    Raises:
        InputError: for a chat of several turns, or marks that are not 0 and 1 alone.
    """
    if all(type(value) is str for value in row.values()):  # nearly all rows
        return None
    chat = next((name for name in CHATS if _is_chat(row.get(name))), None)
    if chat is not None:
        return _of_chat(where, row, chat)
    if _is_chat(row.get("chosen")):
        return _of_preference(where, row)
    listed = next((name for name in LISTED if isinstance(row.get(name), list | Mapping)), None)
    return None if listed is None else _of_marked(where, row, listed)


def _is_chat(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(_turn(one) is not None for one in value)


def _turn(value: object) -> tuple[str, str] | None:
    """Who says what; None for what is no message of text."""
    if not isinstance(value, Mapping):
        return None
    role, text = (next((value[name] for name in names if name in value), None) for names in (ROLES, TEXTS))
    if isinstance(text, list) and all(isinstance(one, Mapping) and one.get("type") == "text" for one in text):
        text = "".join(str(one.get("text", "")) for one in text)  # parts, as OpenAI has them
    return (role.lower(), text) if isinstance(role, str) and isinstance(text, str) else None


def _said(value: Sequence[object], roles: Sequence[str]) -> list[str]:
    turns = [turn for one in value if (turn := _turn(one)) is not None]
    return [text for role, text in turns if role in roles]


def _of_chat(where: str, row: Row, name: str) -> Unfolded:
    """One question and one answer, or the texts of three chats."""
    asked, answered = _said(row[name], ASKS), _said(row[name], ANSWERS)
    rest = {key: value for key, value in row.items() if key != name}
    if isinstance(row.get("positive_messages"), list):
        sides = {side: [_text(where, side, one) for one in _chats(row.get(side))] for side in SIDES}
        rest = {key: value for key, value in rest.items() if key not in SIDES}
        fields = {"query": _text(where, name, row[name]), **dict(zip(FIELDS, sides.values(), strict=True))}
        return Unfolded({**rest, **fields}, f"read as chats: the text of {name} is the query, {_SIDES}")
    if len(asked) != 1 or len(answered) != 1:
        raise InputError(
            f"{where}: {name!r} has {len(asked)} texts of the user and {len(answered)} of the assistant: "
            "which is the query, and which its positive? Write a row with query and positive for each turn."
        )
    system = ", another text is left out" if len(row[name]) > 2 else ""
    said = f"read as chats: the user's text of {name} is the query, the assistant's its positive{system}"
    return Unfolded({**rest, "query": asked[0], "positive": answered[0]}, said)


SIDES, FIELDS = ("positive_messages", "negative_messages"), ("positives", "negatives")
_SIDES = "those of positive_messages and negative_messages its positives and negatives"


def _chats(value: object) -> list[Any]:
    """Chats of a side: a list of them, or one."""
    if not isinstance(value, list):
        return []
    return [value] if _is_chat(value) else value


def _text(where: str, name: str, chat: object) -> str:
    """The one text of a chat that stands for a document."""
    texts = _said(chat, (*ASKS, *ANSWERS)) if isinstance(chat, list) else []
    if len(texts) != 1:
        raise InputError(f"{where}: a chat of {name!r} must have one text, it has {len(texts)}. Split it.")
    return texts[0]


def _of_preference(where: str, row: Row) -> Unfolded:
    """A question with the answer that was preferred and the one that was not."""
    rest = {key: value for key, value in row.items() if key not in ("chosen", "rejected", "prompt")}
    asked = row.get("prompt")
    question = asked if isinstance(asked, str) else None
    if question is None:
        chat = asked if _is_chat(asked) else row["chosen"]
        found = _said(chat, ASKS)  # type: ignore[arg-type]
        if len(found) != 1:
            raise InputError(
                f"{where}: the chat has {len(found)} texts of the user, and a row has one query. Write a row "
                "with query, positive and negative for each turn."
            )
        question = found[0]
    fields: dict[str, Any] = {"query": question}
    for name, field in (("chosen", "positive"), ("rejected", "negative")):
        if (value := row.get(name)) is not None:
            answers = _said(value, ANSWERS) if isinstance(value, list) else [value]
            fields[field] = answers[-1] if answers else ""
    said = (
        "read as preferences: the user's text is the query, the answer of chosen its positive, of rejected "
    )
    return Unfolded({**rest, **fields}, f"{said}a negative")


def _of_marked(where: str, row: Row, name: str) -> Unfolded | None:
    """Documents that whole numbers from 0 on part into positives and negatives; None without such."""
    value = row[name]
    found = documents(value) if isinstance(value, Mapping) else value
    if found and all(isinstance(one, Mapping) and SELECTED in one for one in found):
        marks: Any = [one[SELECTED] for one in found]
        found, mark = [passage(where, name, one) for one in found], f"{name}.{SELECTED}"
    else:
        mark = next((key for key in MARKS if isinstance(row.get(key), list)), "")
        if not mark or isinstance(value, Mapping) or len(row[mark]) != len(found):
            return None
        marks = row[mark]
    if not all(isinstance(one, int | float) and one >= 0 and one == int(one) for one in marks):
        return None
    parts = [
        [one for one, which in zip(found, marks, strict=True) if (which > 0) == side]
        for side in (True, False)
    ]
    used = {name, mark, *((("answers", "wellFormedAnswers")) if SELECTED in mark else ())}
    rest = {key: value for key, value in row.items() if key not in used}
    left = ", answers left alone" if "answers" in row and "answers" in used else ""
    said = f"read as documents with marks: those of {name} above 0 in {mark} are positives, others negatives"
    return Unfolded({**rest, **dict(zip(FIELDS, parts, strict=True))}, said + left)
