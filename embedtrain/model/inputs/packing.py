"""Several texts in one row of tokens, without padding between them: which goes where, and the way back.

Letters: M texts, T tokens of the longest, R rows, W columns of a row, H hidden width.

Rows are filled best-fit decreasing: the longest text first, each into the fullest row that still has room,
which bisection finds. At most 11/9 of the fewest rows are used (Johnson et al. 1974, SIAM J. Comput. 3, as
with first-fit decreasing).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from embedtrain.transfers import moved
from embedtrain.types import Inputs


class Packed(NamedTuple):
    """Rows of several texts each; what is left of a row is padding at its end."""

    values: Tensor  # (R, W) int64
    text: Tensor  # (R, W) int64 number 0..M-1 of the text that a column belongs to, -1 on padding
    positions: Tensor  # (R, W) int64 place of a column in its text, 0 on padding
    starts: Tensor  # (M,) int64 of the host: where each text begins among the R x W columns
    lengths: tuple[int, ...]  # M real tokens of each text
    prompt_len: Tensor  # (M,) int64 as in `Inputs`

    @property
    def mask(self) -> Tensor:
        """(R, W) bool, True on real tokens."""
        return self.text >= 0


def rows_of(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Text numbers of each row, whose lengths sum to `width` at most; a longer text has a row to itself."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # ascending: columns that are free, and the row they are in
    for text in np.argsort(-np.asarray(lengths, np.int64), kind="stable").tolist():
        length = lengths[text]
        place = bisect_left(room, (length, 0))
        if place < len(room):
            free, row = room.pop(place)
            rows[row].append(text)
        else:
            free, row = max(width, length), len(rows)
            rows.append([text])
        if free > length:
            insort(room, (free - length, row))
    return rows


def pack(tokens: Inputs, counts: Sequence[int], lengths: Sequence[int]) -> Packed:
    """The texts of `tokens`, padded on either side, in rows as wide as the fullest of them.

    Args:
        tokens: M texts, those of the first row first.
        counts: R numbers of texts of each row.
        lengths: M real tokens of each text.
    """
    ends = np.cumsum(counts)
    before = np.concatenate([[0], np.cumsum(lengths)])  # tokens of all texts before each
    in_rows = before[ends] - before[ends - counts]  # (R,) tokens of each row
    width = int(in_rows.max())
    shift = np.arange(len(counts)) * width - before[ends - counts]
    starts = torch.from_numpy(before[:-1] + np.repeat(shift, counts))  # (M,)
    device = tokens.values.device
    place = tokens.mask.cumsum(1) - 1  # (M, T) of a real token in its text
    beyond = len(counts) * width  # one column more, which takes the padding and is cut off
    target = (moved(starts, device).unsqueeze(1) + place).masked_fill(~tokens.mask, beyond).flatten()

    def laid_out(values: Tensor, empty: int) -> Tensor:
        flat = torch.full((beyond + 1,), empty, dtype=torch.int64, device=device)
        return flat.scatter_(0, target, values.expand_as(place).flatten())[:-1].view(len(counts), width)

    numbers = torch.arange(len(lengths), device=device).unsqueeze(1)
    return Packed(
        values=laid_out(tokens.values, 0),
        text=laid_out(numbers, -1),
        positions=laid_out(place, 0),
        starts=starts,
        lengths=tuple(lengths),
        prompt_len=tokens.prompt_len,
    )


def unpack(packed: Packed, states: Sequence[Tensor], texts: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """The states of some texts, as rows of their own: each (R, W, H) to (m, T, H), and their mask (m, T).

    Padding is on the right and holds no state of these texts.
    """
    lengths = torch.tensor([packed.lengths[text] for text in texts]).unsqueeze(1)  # (m, 1)
    columns = torch.arange(int(lengths.max()))
    # A column past the end of a short text may lie past the last row: its own last token instead.
    index = packed.starts[list(texts)].unsqueeze(1) + torch.minimum(columns, lengths - 1)  # (m, T)
    mask = moved(columns < lengths, packed.values.device)
    index = moved(index, packed.values.device).flatten()
    return [
        state.flatten(0, 1).index_select(0, index).view(*mask.shape, state.shape[-1]) for state in states
    ], mask
