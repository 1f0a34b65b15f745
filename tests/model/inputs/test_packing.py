import numpy as np
import pytest
import torch

from embedtrain.model.inputs.packing import pack, rows_of, unpack
from embedtrain.types import Inputs


def tokens_of(lengths, side="right", more=0):
    """Text m has the ids 100 m, 100 m + 1, ...; text m skips m tokens of a prompt."""
    width = max(lengths) + more
    ids = torch.full((len(lengths), width), 7)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        begin = width - length if side == "left" else 0
        ids[row, begin : begin + length] = 100 * row + torch.arange(length)
        mask[row, begin : begin + length] = True
    return Inputs(ids, mask, torch.arange(len(lengths)))


@pytest.mark.parametrize("width", [1, 12, 40])
def test_every_text_is_in_one_row_that_holds_it(width):
    for seed in range(10):
        lengths = np.random.default_rng(seed).integers(1, 20, 60).tolist()
        rows = rows_of(lengths, width)
        assert sorted(text for row in rows for text in row) == list(range(60))
        sums = [sum(lengths[text] for text in row) for row in rows]
        assert all(total <= width or len(row) == 1 for total, row in zip(sums, rows, strict=True))


def test_few_rows_are_used():
    lengths = np.random.default_rng(0).integers(2, 30, 2_000).tolist()
    rows = rows_of(lengths, 64)
    fewest = -(-sum(lengths) // 64)
    assert fewest <= len(rows) <= 1.02 * fewest
    assert rows_of([5, 3, 2, 2, 7], 7) == [[4], [0, 2], [1, 3]]  # each into the fullest row with room
    assert rows_of([], 7) == []


@pytest.mark.parametrize("side", ["right", "left"])
def test_texts_stand_side_by_side_and_come_back(side):
    lengths = [3, 1, 4, 2]
    packed = pack(tokens_of(lengths, side, more=2), [3, 1], lengths)
    assert packed.values.tolist() == [[0, 1, 2, 100, 200, 201, 202, 203], [300, 301, 0, 0, 0, 0, 0, 0]]
    assert packed.text.tolist() == [[0, 0, 0, 1, 2, 2, 2, 2], [3, 3, -1, -1, -1, -1, -1, -1]]
    assert packed.positions.tolist() == [[0, 1, 2, 0, 0, 1, 2, 3], [0, 1, 0, 0, 0, 0, 0, 0]]
    assert packed.mask.sum() == sum(lengths)
    assert packed.prompt_len.tolist() == [0, 1, 2, 3]
    states = packed.values.unsqueeze(-1).double()
    for texts in ([0, 1, 2, 3], [3, 1], [2]):
        (own, halves), mask = unpack(packed, [states, states / 2], texts)
        assert mask.tolist() == [
            [place < lengths[text] for place in range(max(lengths[text] for text in texts))] for text in texts
        ]
        for row, text in enumerate(texts):
            assert own[row, : lengths[text], 0].tolist() == list(
                range(100 * text, 100 * text + lengths[text])
            )
        assert torch.equal(halves, own / 2)


def test_only_the_states_of_a_text_get_its_gradient():
    lengths = [3, 1, 4, 2]
    packed = pack(tokens_of(lengths), [3, 1], lengths)
    states = torch.zeros(2, 8, 5, requires_grad=True)
    (own,), mask = unpack(packed, [states], [1, 2])
    own[mask].sum().backward()
    assert torch.equal(states.grad[..., 0], ((packed.text == 1) | (packed.text == 2)).float())
