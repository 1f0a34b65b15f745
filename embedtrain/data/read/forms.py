"""Forms of rows: our own, and those that other tools write; the names that fields have in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Form(NamedTuple):
    """A form of rows that others write."""

    name: str
    marks: tuple[str, ...]  # fields that show it
    becomes: str  # how it becomes our row


FORMS = (
    Form("FlagEmbedding", ("pos",), "query, pos, neg; pos_scores, neg_scores are teacher_scores; prompt"),
    Form("Tevatron", ("positive_passages",), "query; passages are title, space, text"),
    Form("DPR", ("positive_ctxs",), "question; positive_ctxs, hard_negative_ctxs are title, space, text"),
    Form("set", ("set",), "texts of one meaning: the first is the query, the others its positives"),
    Form("columns without names", ("column_1",), "query, positive, negatives; a last number is the score"),
    Form("question and answer", ("question",), "question is the query"),
    Form("numbered columns", ("sentence1", "text1", "sent0", "sentence_a"), "the first is the query, "
         "then its positive, then negatives"),
)  # fmt: skip

# Our field -> its names, ours first. A name of the first group wins over one of the second.
QUERY = ("query", "anchor"), ("question", "search_query", "user_query", "query_text", "q", "premise")
POSITIVE = (
    (
        "positive",
        "positives",
        "pos",
        "positive_passages",
        "positive_ctxs",
        "positive_passage",
        "positive_text",
    ),
    (
        *("answer", "answers", "document", "passage", "doc", "context", "response", "chosen", "paraphrase"),
        "hypothesis",
    ),
)
NEGATIVE = (
    ("negative", "negatives", "neg", "hard_neg", "hard_negative", "hard_negatives", "negative_passages",
     "hard_negative_ctxs", "negative_passage", "negative_text", "rejected"),
    ("negative_ctxs",),
)  # fmt: skip
SCORE = ("score",), (
    "label", "labels", "is_duplicate", "scores", "similarity", "similarity_score", "relatedness",
    "relatedness_score", "margin",
)  # fmt: skip
STEMS = {"positive": ("positive", "pos"), "negative": ("negative", "neg", "hard_negative")}  # negative_2
INSTRUCTION = ("instruction",), ("query_instruction", "task_instruction")
OTHERS = ("teacher_scores", "pos_scores", "neg_scores", "prompt", "task")
OWN = frozenset(
    ("query", "positive", "positives", "negative", "negatives", "score", "instruction", "task", "prompt")
) | {"teacher_scores", "text", "id"}
COUNTED = {"one": "1", "two": "2", "three": "3"}
NUMBERED = re.compile(rf"(?!column_)(.+?)[ _-]?(\d{{1,9}}|[ab]|{'|'.join(COUNTED)})")
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
CHAT = ("response", "chosen", "answer", "answers")  # what a prompt beside it asks for: it is the query
FACT = re.compile(
    r"(.*[_-])?(id|ids|idx|index|uuid|guid|qid|pid|docid|url|lang|language|split|source|dataset|domain|subject|topic|"
    r"type|date|time|author|license|metadata|meta)", re.IGNORECASE,
)  # fmt: skip
CLASS = re.compile(r"label.*|class|intent|category|emotion|sentiment", re.IGNORECASE)
NOT_USED = {  # known fields of others that have no place in a row here
    "type": "type (for FlagEmbedding's symmetric_class and symmetric_clustering, set in_batch: false)",
    "negative_ctxs": "negative_ctxs (passages drawn at random: a batch has such)",
}


class Reading(NamedTuple):
    """Which fields rows of some names have."""

    scalars: Mapping[str, str]  # our field -> name in the row: query, score, prompt, ...
    positives: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    kind: str = "pair"  # or "set", "text"
    guessed: bool = False  # by position, not by names
    name: str = ""  # of the form

    def names(self) -> list[str]:
        """The names in the row that are read, as they come."""
        return [*self.scalars.values(), *self.positives, *self.negatives]

    def needed(self) -> set[str]:
        """Those without which there is no row."""
        return {name for field, name in self.scalars.items() if field in ("query", "text")} | set(
            self.positives[:1]
        )


def describe(reading: Reading, row: Row) -> str:
    """What a row is read as, and which of its fields are left alone; "" for our own form."""
    used = set(reading.names())
    left = [NOT_USED.get(name, name) for name in row if name not in used and name != "id"]
    parts = []
    if (
        reading.guessed
        or reading.name
        or any(plain(name) not in OWN for name in used if not _is_numbered(name))
    ):
        parts = [f"{name} as {field}" for field, name in reading.scalars.items() if field != name]
        for field, names in (("positive", reading.positives), ("negative", reading.negatives)):
            if names:
                parts.append(f"{', '.join(names)} as {field}")
        name = reading.name or {"text": "texts alone"}.get(reading.kind, "pairs")
        by = ", by position" if reading.guessed else ""
        parts = [f"read as {name}{by}: {'; '.join(parts)}"]
    if left:
        parts.append(f"left alone: {', '.join(left[:20])}")
    if reading.kind == "text" and (label := next((name for name in row if CLASS.fullmatch(name)), None)):
        parts.append(
            f"texts with class labels ({label}) are no pairs. python -m embedtrain.data.labelled ROWS OUT "
            "writes triplets of them; step=masked trains on the texts; classification/NAME/test is evaluated"
        )
    return ". ".join(parts)


def _is_numbered(name: str) -> bool:
    match = NUMBERED.fullmatch(name)
    return bool(match and match[1] in ("negative", "positive"))


def plain(name: str) -> str:
    """The name in small letters with underscores: Query-ID is query_id."""
    return name.lower().replace("-", "_").replace(" ", "_")
