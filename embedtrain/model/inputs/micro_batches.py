"""Contents grouped by their lengths, which the host knows, so that little is padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.transfers import moved
from embedtrain.types import Inputs

# Rows x padded length of one micro-batch where none is given. MiniLM on two cores encoded 215 short texts
# per CPU second at 256 tokens, 290 at 1,024 and 2,048, 250 at 4,096, 165 at 16,384 (caches overflow).
CPU_MAX_TOKENS = 2_048
# The same elsewhere: half of the memory of a GPU, where a token keeps 57 bytes for backward for each
# coordinate of each block under bfloat16 (0.52 MB of BERT-base); 16,384 where nobody knows the memory.
DEVICE_MAX_TOKENS = 16_384
MOST_TOKENS = 131_072
KEPT_BYTES = 57


def micro_batches(lengths: Sequence[int], max_tokens: int, overhead: int | None = None) -> list[list[int]]:
    """Row numbers grouped longest first, each group's rows x longest length within `max_tokens`.

    A row that is longer than `max_tokens` gets a group of its own. Equal lengths keep their order. With
    `overhead` a group ends earlier where that saves more tokens of padding than it.
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    descending = np.asarray(lengths, np.int64)[order]
    groups: list[list[int]] = []
    start = 0
    while start < len(order):
        end = start + max(1, max_tokens // max(int(descending[start]), 1))
        end = min(end, len(order))
        if overhead is not None:
            end = start + _first_cut(descending[start:end], overhead)
        groups.append(order[start:end].tolist())
        start = end
    return groups


def _first_cut(descending: NDArray[np.int64], overhead: int) -> int:
    """How many of the longest rows to take alone, so that each cut saves more padding than `overhead`."""
    end = len(descending)
    while end > 1:
        cuts = np.arange(1, end)
        saved = (end - cuts) * (descending[0] - descending[1:end])  # tokens that a cut there spares the rest
        best = int(saved.argmax())
        if saved[best] <= overhead:
            break
        end = best + 1
    return end


def device_tokens(memory: int | None, layers: int, hidden: int) -> int:
    """Tokens of a micro-batch of a model of `layers` blocks x `hidden` in `memory` bytes: a power of two."""
    if memory is None:
        return DEVICE_MAX_TOKENS
    fitting = memory // 2 // (KEPT_BYTES * layers * hidden)
    return min(max(1 << (fitting.bit_length() - 1 if fitting else 0), CPU_MAX_TOKENS), MOST_TOKENS)


def with_spans(inputs: Inputs) -> Inputs:
    """The same, its `spans` known; where nobody knew them, by one transfer from the device.

    Raises:
        ValueError: for a content without tokens.
    """
    if inputs.spans is None:
        real = inputs.mask.to(torch.int32)
        end = inputs.mask.shape[1] - real.flip(1).argmax(1) if len(real) else real.sum(1)
        first = real.argmax(1) if len(real) else end
        spans = torch.stack([first, end, real.sum(1)], dim=1).to(torch.int64).cpu().numpy()
        inputs = inputs._replace(spans=spans)
    assert inputs.spans is not None
    empty = np.flatnonzero(inputs.spans[:, 2] == 0)
    if len(empty):
        raise ValueError(f"content {empty[0]} of {len(inputs.spans)} has no tokens")
    return inputs


def lengths_of(inputs: Inputs) -> list[int]:
    """Real tokens of each content."""
    known = with_spans(inputs).spans
    assert known is not None
    lengths: list[int] = known[:, 2].tolist()
    return lengths


def in_order(parts: Sequence[Tensor], rows: Sequence[Sequence[int]]) -> Tensor:
    """Parts (L, m, D) as one (L, M, D), given the row numbers of each; a part beyond those has no rows."""
    order = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int64)
    return torch.cat(list(parts), dim=1).index_select(1, moved(order.argsort(), parts[0].device))


def rows_alone(inputs: Inputs, group: Sequence[int]) -> Inputs:
    """Some contents, without the columns in which all of them are padding."""
    assert inputs.spans is not None
    spans = inputs.spans[group]
    begin, end = int(spans[:, 0].min()), int(spans[:, 1].max())
    index = moved(torch.tensor(group), inputs.values.device)
    columns = slice(begin, end)
    return Inputs(
        inputs.values[index, columns],
        inputs.mask[index, columns],
        inputs.prompt_len[index],
        spans - np.array([begin, begin, 0], np.int64),
    )
