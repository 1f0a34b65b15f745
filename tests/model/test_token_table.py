import pytest
import torch
from tiny_models import some_tokens, tiny_config, tiny_model
from torch import Tensor

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.families import FAMILIES
from embedtrain.model.token_table import looked_up
from embedtrain.types import Inputs

LAST = (4,)


def in_two_parts(backbone: Backbone, tokens: Inputs) -> Tensor:
    half = len(tokens.values) // 2
    parts = [tokens.rows(torch.arange(half)), tokens.rows(torch.arange(half, len(tokens.values)))]
    states = [backbone(part, LAST)[0] for part in parts]
    return torch.cat([state[part.mask] for state, part in zip(states, parts, strict=True)])


def lookups(output: Tensor, weight: Tensor) -> int:
    """How many nodes of the graph look `weight` up, each of which fills a gradient of its size."""
    seen, left, count = set(), [output.grad_fn], 0
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        after = [one for one, _ in node.next_functions]
        count += "EmbeddingBackward" in type(node).__name__ and any(
            getattr(one, "variable", None) is weight for one in after
        )
        left += after
    return count


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_one_lookup_gives_the_states_and_gradients_of_many(kind):
    backbone = Backbone(tiny_model(tiny_config(kind)))
    tokens = some_tokens(pad=backbone.model.config.pad_token_id)
    table = backbone.model.get_input_embeddings()
    plain = in_two_parts(backbone, tokens)
    assert lookups(plain, table.weight) == 2
    wanted = torch.autograd.grad(plain.square().sum(), table.weight)[0]
    with looked_up(backbone.model, tokens.values):
        shared = in_two_parts(backbone, tokens)
    assert torch.equal(shared, plain)
    assert lookups(shared, table.weight) == 1
    torch.testing.assert_close(
        torch.autograd.grad(shared.square().sum(), table.weight)[0], wanted, rtol=1e-4, atol=1e-6
    )
    assert torch.equal(in_two_parts(backbone, tokens), plain)  # the table is as it was


def test_a_token_that_was_not_named_and_a_frozen_table():
    backbone = Backbone(tiny_model(tiny_config("bert")))
    tokens = some_tokens()
    table = backbone.model.get_input_embeddings()
    with pytest.raises(IndexError), looked_up(backbone.model, tokens.values[:1]):
        table(tokens.values + 1)
    assert "forward" not in vars(table)
    with torch.no_grad(), looked_up(backbone.model, tokens.values):
        assert "forward" not in vars(table)
    table.requires_grad_(False)
    with looked_up(backbone.model, tokens.values):
        assert "forward" not in vars(table)
