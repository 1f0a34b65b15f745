"""Examples to one `Batch`: every distinct text tokenised once, and who belongs to whom.

Letters: B queries, N documents (positives and ragged negatives), M distinct (role, prompt, text) triples,
K labelled positives. Text ids are of the text alone: the same text behind another prompt, or in the other
role, is another row to encode and yet no negative of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from embedtrain.data.sources import Example
from embedtrain.types import Batch, Links, Role, Tokenize, Tokens, stack_tokens, text_id

ROLES: tuple[Role, ...] = ("query", "document")


class _Text(NamedTuple):
    """What is tokenised once."""

    role: Role
    prompt: str | None  # None is the model's own of that role
    text: str


def collate(
    examples: Sequence[Example],
    rows: Sequence[int],
    tokenize: Tokenize,
    epoch: int,
    *,
    max_negatives: int | None = None,
    guide_tokenize: Tokenize | None = None,
) -> Batch:
    """The batch of the given rows.

    Of several positives one is taken, of more than `max_negatives` negatives as many; both rotate with the
    epoch (positives with the row too), so that in time all are used and no state is kept. Every labelled
    positive, taken or not, is in `known`.

    Args:
        examples: all rows of the data.
        rows: B row numbers.
        tokenize: called once with the distinct queries, once with the distinct documents, and the prompt of
            each.
        epoch: 0 or more.
        max_negatives: most negatives of a row; all when None.
        guide_tokenize: makes the tokens of a guide model, which gets its own prompts and none of the data's.
    """
    taken = [examples[row] for row in rows]
    texts: dict[_Text, int] = {}  # row among the M texts; queries come first
    query = [
        texts.setdefault(_Text("query", example.prompts.query, example.query), len(texts))
        for example in taken
    ]
    docs: list[int] = []
    owner: list[int] = []
    positive: list[int] = []
    for place, (row, example) in enumerate(zip(rows, taken, strict=True)):
        positive.append(len(docs))
        chosen = example.positives[(epoch + row) % len(example.positives)]
        for text in (chosen, *_rotated(example.negatives, epoch, max_negatives)):
            docs.append(texts.setdefault(_Text("document", example.prompts.document, text), len(texts)))
            owner.append(place)
    known = [(text_id(text), place) for place, example in enumerate(taken) for text in example.positives]
    links = Links(
        text_ids=_integers([text_id(item.text) for item in texts]),  # (M,)
        query=_integers(query),  # (B,)
        docs=_integers(docs),  # (N,)
        owner=_integers(owner),  # (N,)
        positive=_integers(positive),  # (B,)
        known=_integers([number for number, _ in known]),  # (K,)
        known_owner=_integers([place for _, place in known]),  # (K,)
        task=_integers([_task_id(example.task) for example in taken]),  # (B,)
        rows=_integers(rows),  # (B,)
        scores=_scores(taken),  # (B,) or None
    )
    guide = (
        None if guide_tokenize is None else _tokens([_without_prompt(item) for item in texts], guide_tokenize)
    )
    return Batch(_tokens(list(texts), tokenize), links, guide)


@lru_cache(maxsize=1024)
def _task_id(task: str) -> int:
    return text_id(task)


def _rotated(negatives: tuple[str, ...], epoch: int, most: int | None) -> tuple[str, ...]:
    """At most `most` negatives: the next ones of a ring at every epoch."""
    if most is None or len(negatives) <= most:
        return negatives
    start = epoch * most % len(negatives)
    return (negatives + negatives)[start : start + most]


def _tokens(texts: list[_Text], tokenize: Tokenize) -> Tokens:
    """Tokens of the M texts in their order; all queries come before all documents."""
    parts = []
    for role in ROLES:
        own = [item for item in texts if item.role == role]
        parts.append(tokenize([item.text for item in own], role, [item.prompt for item in own]))
    return stack_tokens(parts)


def _without_prompt(item: _Text) -> _Text:
    return item._replace(prompt=None)


def _scores(examples: list[Example]) -> Tensor | None:
    scores = [example.score for example in examples if example.score is not None]
    return torch.tensor(scores, dtype=torch.float32) if scores else None


def _integers(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
