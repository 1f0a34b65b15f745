"""Picked rows to one `Batch`: every distinct content processed once, and who belongs to whom.

Letters: B queries, N documents (positives and ragged negatives), M distinct (role, prompt, content) triples,
K labelled positives. Content ids are of the content alone: the same text behind another prompt, or in the
other role, is another row to encode and yet no negative of itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from embedtrain.content_ids import content_id
from embedtrain.data.order.draw import Pick
from embedtrain.data.read.sources import offered
from embedtrain.model.guides.keys import text_keys
from embedtrain.types import Batch, Content, Inputs, Links, Processor, Role

ROLES: tuple[Role, ...] = ("query", "document")


class _Item(NamedTuple):
    """What is processed once."""

    role: Role
    prompt: str | None  # None is the model's own of that role
    content: Content


class PairCollate(NamedTuple):
    """`collate` with the processors of one run."""

    process: Processor
    guide_process: Processor | None = None

    def __call__(self, picks: Sequence[Pick], step: int) -> Batch:
        """The batch of the rows of any step."""
        return collate(picks, self.process, guide_process=self.guide_process)


def collate(picks: Sequence[Pick], process: Processor, *, guide_process: Processor | None = None) -> Batch:
    """The batch of the given rows.

    Every labelled positive, taken or not, is in `known`.

    Args:
        picks: B rows, and which positive and negatives of each take part.
        process: called once with the distinct queries, once with the distinct documents, and the prompt of
            each.
        guide_process: makes the inputs of a guide model, which gets its own prompts and none of the data's.
    """
    taken = [item.example for item in picks]
    offers = offered(taken)
    items: dict[_Item, int] = {}  # row among the M contents; queries come first
    query = [
        items.setdefault(_Item("query", example.prompts.query, example.query), len(items))
        for example in taken
    ]
    docs: list[int] = []
    owner: list[int] = []
    positive: list[int] = []
    teacher: list[float] = []
    for place, (_, example, chosen, negatives) in enumerate(picks):
        positive.append(len(docs))
        every = (*example.positives, *example.negatives)
        scores = example.teacher or (math.nan,) * len(every)
        first = len(example.positives)
        for number in (chosen, *(first + negative for negative in negatives)):
            item = _Item("document", example.prompts.document, every[number])
            docs.append(items.setdefault(item, len(items)))
            owner.append(place)
            teacher.append(scores[number])
    known = [(content_id(one), place) for place, example in enumerate(taken) for one in example.positives]
    links = Links(
        content_ids=_integers([content_id(item.content) for item in items]),  # (M,)
        query=_integers(query),  # (B,)
        docs=_integers(docs),  # (N,)
        owner=_integers(owner),  # (N,)
        positive=_integers(positive),  # (B,)
        known=_integers([number for number, _ in known]),  # (K,)
        known_owner=_integers([place for _, place in known]),  # (K,)
        task=_integers([_task_id(example.task) for example in taken]),  # (B,)
        rows=_integers([item.number for item in picks]),  # (B,)
        scores=_floats([_or_nan(example.score) for example in taken]) if "scores" in offers else None,  # (B,)
        teacher=_floats(teacher) if "teacher" in offers else None,  # (N,)
    )
    guide = None
    if guide_process is not None:
        guide = _inputs([item._replace(prompt=None) for item in items], guide_process)
        guide = guide._replace(keys=text_keys(guide))
    return Batch(_inputs(list(items), process), links, guide)


def stack_inputs(parts: Sequence[Inputs]) -> Inputs:
    """Several `Inputs` as one, right-padded to the longest: (ΣM, max T). Raises ValueError when empty."""
    if not parts:
        raise ValueError("no inputs to stack")
    width = max(part.mask.shape[1] for part in parts)

    def stacked(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([pad(one, (*(0, 0) * (one.ndim - 2), 0, width - one.shape[1])) for one in tensors])

    values, masks, skips, spans, _ = zip(*parts, strict=True)
    known = (
        None if any(part is None for part in spans) else np.concatenate(spans)
    )  # the padding is on the right
    return Inputs(stacked(values), stacked(masks), torch.cat(skips), known)


@lru_cache(maxsize=1024)
def _task_id(task: str) -> int:
    return content_id(task)


def _inputs(items: list[_Item], process: Processor) -> Inputs:
    """Inputs of the M contents in their order; all queries come before all documents."""
    parts = []
    for role in ROLES:
        own = [item for item in items if item.role == role]
        parts.append(process([item.content for item in own], role, [item.prompt for item in own]))
    return stack_inputs(parts)


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else number


def _floats(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _integers(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
