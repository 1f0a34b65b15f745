import numpy as np
import pytest
import torch

from embedtrain.content_ids import content_id
from embedtrain.training.steps.contrastive.collate import stack_inputs
from embedtrain.types import (
    Batch,
    Embeddings,
    InputError,
    Inputs,
    Links,
    SubModel,
    Weighted,
    distinct_layers,
)


@pytest.fixture
def embeddings():
    generator = torch.Generator().manual_seed(0)
    return Embeddings(torch.randn(2, 5, 6, generator=generator), (2, 4))


def test_sub_models_sort_by_layer_and_print_as_in_metric_names():
    assert sorted([SubModel(4, 2), SubModel(2, 8), SubModel(2, 4)])[0] == (2, 4)
    assert str(SubModel(6, 128)) == "L6_D128"
    assert f"train/loss_{SubModel(6, 128)}" == "train/loss_L6_D128"


def test_raw_is_the_prefix_as_it_was_pooled(embeddings):
    assert torch.equal(embeddings.raw(SubModel(4, 3)), embeddings.values[1, :, :3])


def test_at_truncates_before_it_normalises(embeddings):
    rows = embeddings.at(SubModel(2, 3))
    prefix = embeddings.values[0, :, :3]
    torch.testing.assert_close(rows, prefix / prefix.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(5))


def test_rows_come_in_the_order_asked_for(embeddings):
    picked = embeddings.rows(torch.tensor([3, 0, 3]))
    assert picked.layers == (2, 4)
    assert torch.equal(picked.values, embeddings.values[:, [3, 0, 3]])


def test_gradient_of_repeated_rows_adds_up():
    values = torch.ones(1, 3, 2, requires_grad=True)
    Embeddings(values, (1,)).rows(torch.tensor([1, 1, 2])).values.sum().backward()
    assert values.grad[0, :, 0].tolist() == [0.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("sub", "message"),
    [
        (SubModel(3, 2), r"layer 3 was not kept, layers are \[2, 4\]"),
        (SubModel(2, 7), r"dim must be in 1\.\.6, got 7"),
        (SubModel(2, 0), r"dim must be in 1\.\.6, got 0"),
    ],
)
def test_a_cut_that_is_not_there_is_refused(embeddings, sub, message):
    for read in (embeddings.raw, embeddings.at):
        with pytest.raises(ValueError, match=message):
            read(sub)


def test_distinct_layers_ascend():
    chosen = [Weighted(SubModel(*pair), 1.0) for pair in ((4, 2), (1, 8), (4, 8))]
    assert distinct_layers(chosen) == (1, 4)
    assert distinct_layers([]) == ()


def tokens(rows, length, first):
    ids = torch.arange(first, first + rows * length).reshape(rows, length)
    return Inputs(ids, torch.ones_like(ids, dtype=torch.bool), torch.full((rows,), first))


def test_stacked_tokens_are_padded_on_the_right_to_the_longest():
    stacked = stack_inputs([tokens(2, 3, 1), tokens(1, 5, 10)])
    assert stacked.values.tolist() == [[1, 2, 3, 0, 0], [4, 5, 6, 0, 0], [10, 11, 12, 13, 14]]
    assert stacked.mask.tolist() == [[True] * 3 + [False] * 2] * 2 + [[True] * 5]
    assert stacked.prompt_len.tolist() == [1, 1, 10]
    assert stacked.mask.dtype == torch.bool


def test_rows_of_numbers_stack_as_tokens_do():
    parts = [
        Inputs(torch.full((1, width, 2), 1.0), torch.ones(1, width).bool(), torch.zeros(1).long())
        for width in (1, 2)
    ]
    stacked = stack_inputs(parts)
    assert stacked.values.tolist() == [[[1, 1], [0, 0]], [[1, 1], [1, 1]]]
    assert stacked.rows(torch.tensor([1])).mask.tolist() == [[True, True]]


class Own:
    content_id = 5


def test_equal_contents_have_equal_ids_and_others_do_not():
    assert content_id("a cat") == 3745569759787347665
    assert content_id(Own()) == 5
    same = [((1, 2.0), (0.0, 4)), np.array([[1.0, 2.0], [-0.0, 4.0]], np.float32)]
    assert len({content_id(one) for one in same}) == 1
    flat = (1.0, 2.0, 0.0, 4.0)
    others = ["", b"", "a", b"a", (), flat, (flat,), np.array(flat).tobytes(), *same[:1], "é"]
    assert len({content_id(one) for one in others}) == len(others)
    assert all(0 <= content_id(one) < 2**63 for one in others)


@pytest.mark.parametrize("content", [None, object(), ((1.0,), (1.0, 2.0)), ("a", "b")])
def test_a_content_of_no_known_kind_is_refused(content):
    with pytest.raises(TypeError, match="is no content: give it a number `content_id`"):
        content_id(content)


def test_nothing_to_stack_is_refused():
    with pytest.raises(ValueError, match="no inputs to stack"):
        stack_inputs([])


def test_input_errors_are_value_errors():
    assert issubclass(InputError, ValueError)


def test_batches_pin_and_move_as_nested_tuples():
    """DataLoader and Lightning rebuild NamedTuples field by field; a dataclass would stay behind."""
    from lightning_utilities.core.apply_func import apply_to_collection

    links = Links(*(torch.zeros(1, dtype=torch.long) for _ in range(9)), scores=None)
    moved = apply_to_collection(Batch(tokens(1, 2, 0), links), torch.Tensor, lambda tensor: tensor + 1)
    assert isinstance(moved, Batch)
    assert isinstance(moved.links, Links)
    assert moved.inputs.values.tolist() == [[1, 2]]
    assert moved.links.rows.item() == 1
    assert moved.links.scores is None
