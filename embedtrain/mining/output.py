"""Mined rows as a file that embedtrain trains on: as many as there were, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from embedtrain.data.read.sources import Example
from embedtrain.mining.mine import Mined
from embedtrain.mining.problem import Problem
from embedtrain.types import InputError

BEFORE, AFTER = "Instruct: ", "\nQuery: "  # of the prompt that an instruction becomes when rows are read
STATISTICS = ("out", "rows_in", "rows_out", "teacher")  # some keys of the file beside mined rows
DIGITS = 6  # of scores: float16 vectors know no more


def mined_rows(
    examples: Sequence[Example], mined: Sequence[tuple[Problem, Mined]], *, keep_negatives: bool
) -> Iterator[dict[str, Any]]:
    """Each row with its negatives and the scores of positives and negatives, in the order of `examples`.

    Args:
        examples: all rows.
        mined: problems that together have all rows, and their negatives.
        keep_negatives: whether a row's own negatives come first.
    """
    places = {
        int(row): (part, int(query))
        for part, (problem, _) in enumerate(mined)
        for row, query in zip(problem.rows, problem.query_of, strict=True)
    }
    for row, example in enumerate(examples):
        part, query = places[row]
        problem, negatives = mined[part]
        yield _row(example, problem, negatives, query, keep_negatives)


def _row(example: Example, problem: Problem, mined: Mined, query: int, keep: bool) -> dict[str, Any]:
    labelled = zip(problem.labelled(query).tolist(), mined.labelled[query].tolist(), strict=True)
    score_of = {problem.documents[number]: score for number, score in labelled}
    numbers = mined.negatives[query]
    some = numbers >= 0
    texts = [problem.documents[number] for number in numbers[some].tolist()]
    own = list(example.negatives) if keep else []
    known = [score_of[text] for text in (*example.positives, *own)]
    row: dict[str, Any] = {
        "query": example.query,
        "positives": list(example.positives),
        "negatives": [*own, *texts],
        "teacher_scores": [round(score, DIGITS) for score in (*known, *mined.scores[query][some].tolist())],
        "task": example.task,
    }
    if example.prompts.query is not None:
        row["instruction"] = _instruction(example)
    return row


def _instruction(example: Example) -> str:
    """The field that gives the row its prompt when it is read."""
    prompt = example.prompts.query or ""
    if not prompt:
        return ""
    if not (prompt.startswith(BEFORE) and prompt.endswith(AFTER)):
        raise InputError(f"{example.where}: its prompt {prompt[:60]!r} is no instruction and fits in no row")
    return prompt[len(BEFORE) : -len(AFTER)]
