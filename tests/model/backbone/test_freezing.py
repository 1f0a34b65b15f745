import pytest
import torch
from tiny_models import some_tokens
from torch import nn

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.backbone.freezing import freeze, trainable_names
from embedtrain.types import InputError

EMBEDDINGS = {
    "tiny_bert": {"word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm"},
    "tiny_modernbert": {"tok_embeddings", "norm"},
    "tiny_gemma3": {"embed_tokens"},
}


@pytest.mark.parametrize("name", sorted(EMBEDDINGS))
def test_frozen_embeddings_are_all_before_the_first_block_and_nothing_else(name, request):
    backbone = Backbone.load(request.getfixturevalue(name))
    freeze(backbone, embeddings=True)
    frozen = {key for key, value in backbone.model.named_parameters() if not value.requires_grad}
    assert {key.split(".")[-2] for key in frozen} == EMBEDDINGS[name]
    assert not any(key.startswith(f"{backbone.block_path}.") for key in frozen)
    assert all(value.requires_grad for value in backbone.blocks.parameters())
    backbone.train()(some_tokens((7, 7)), (1, 4))[1].sum().backward()
    assert {key for key, value in backbone.model.named_parameters() if value.grad is None} == frozen


@pytest.mark.parametrize("name", sorted(EMBEDDINGS))
def test_first_blocks_are_frozen_and_the_rest_is_trained(name, request):
    backbone = Backbone.load(request.getfixturevalue(name))
    freeze(backbone, first_blocks=2)
    assert [all(value.requires_grad for value in block.parameters()) for block in backbone.blocks] == [
        False,
        False,
        True,
        True,
    ]
    assert not any(value.requires_grad for block in backbone.blocks[:2] for value in block.parameters())
    assert all(value.requires_grad for value in backbone.embedding_parameters())


def test_an_update_leaves_what_is_frozen_and_moves_what_is_trainable(tiny_llama):
    backbone = Backbone.load(tiny_llama)
    freeze(backbone, embeddings=True, first_blocks=3)
    names = trainable_names(backbone)
    before = {key: value.clone() for key, value in backbone.named_parameters()}
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1)
    backbone(some_tokens((7, 7)), (4,))[0].square().sum().backward()
    optimizer.step()
    moved = [key for key, value in backbone.named_parameters() if not torch.equal(value, before[key])]
    assert moved == names
    assert {name.split(".")[1] for name in names} == {"layers", "norm"}


def test_nothing_is_frozen_by_default(tiny_llama):
    backbone = Backbone.load(tiny_llama)
    freeze(backbone)
    assert trainable_names(backbone) == [name for name, _ in backbone.named_parameters()]


@pytest.mark.parametrize("first_blocks", [-1, 5])
def test_blocks_that_are_not_there_are_refused(first_blocks, tiny_llama):
    with pytest.raises(InputError, match=rf"first_blocks must be in 0\.\.4, got {first_blocks}"):
        freeze(Backbone.load(tiny_llama), first_blocks=first_blocks)


def test_names_of_what_is_trainable_are_those_of_the_module():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    assert trainable_names(module) == ["1.weight", "1.bias"]
