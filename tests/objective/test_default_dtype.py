"""Lightning's bf16-true makes bfloat16 the default dtype of a step: no loss may depend on the default."""

import copy

import pytest
import torch
import torch.nn.functional as F
from every_loss import PARTS, parts
from random_batches import random_links

from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.training import distributed
from embedtrain.types import Embeddings, Guide, SubModel, Weighted

WIDTH, LAYERS, GUIDE = 8, (1, 2), 4
EXTRA = {"num_layers": 2, "width": WIDTH, "guide_width": GUIDE, "seed": 0}
CHOSEN = tuple(Weighted(SubModel(layer, dim), 1.0) for layer in LAYERS for dim in (WIDTH // 4, WIDTH))


def gradients(objective, dtype):
    """Of the texts, under a default dtype."""
    links = random_links(3, tasks=1)
    links = links._replace(teacher=torch.linspace(0, 1, len(links.docs)))
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(len(LAYERS), len(links.content_ids), WIDTH, generator=draw).requires_grad_()
    vectors = F.normalize(torch.randn(len(links.content_ids), GUIDE, generator=draw), dim=-1)
    torch.set_default_dtype(dtype)
    try:
        pairing = Negatives()(links, guide=Guide(vectors[links.query], vectors[links.docs]))
        texts = Embeddings(values, LAYERS)
        objective(texts.rows(links.query), texts.rows(links.docs), pairing, CHOSEN).total.backward()
    finally:
        torch.set_default_dtype(torch.float32)
    return values.grad


@pytest.mark.parametrize("name", PARTS)
def test_the_default_dtype_changes_nothing(name):
    objective = Objective(*parts(name, **EXTRA))
    half = gradients(copy.deepcopy(objective), torch.bfloat16)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, gradients(objective, torch.float32), rtol=0, atol=0)


def test_ranks_without_numbers_send_none_of_full_precision():
    torch.set_default_dtype(torch.bfloat16)
    try:
        sent = distributed._bits(None, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert sent.view(torch.float64).isnan().tolist() == [True] * 3
