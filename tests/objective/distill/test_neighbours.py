import pytest
import torch
from random_batches import random_embeddings

from embedtrain.objective.distill.neighbours import NeighbourKL
from embedtrain.types import Embeddings, InputError, SubModel, Weighted

CHOSEN = (Weighted(SubModel(1, 2), 0.5), Weighted(SubModel(2, 5), 2.0), Weighted(SubModel(3, 8), 1.0))


def slow(texts, student, teacher, temperature):
    """KL of each text's neighbours, text by text."""
    total = 0.0
    for i in range(texts.values.shape[1]):
        sides = []
        for layer, dim in (teacher, student):
            vectors = texts.values[layer - 1][:, :dim]
            unit = vectors / vectors.norm(dim=1, keepdim=True)
            sides.append(
                torch.softmax(
                    torch.stack([unit[i] @ unit[j] / temperature for j in range(len(unit)) if j != i]), 0
                )
            )
        p, q = sides[0].detach(), sides[1]
        total = total + (p * (p / q).log()).sum()
    return total / texts.values.shape[1]


@pytest.mark.parametrize(
    ("teachers", "expected"),
    [
        ("largest", [(0.5, (1, 2), (3, 8)), (2.0, (2, 5), (3, 8))]),
        ("next", [(0.5, (1, 2), (2, 5)), (2.0, (2, 5), (3, 8))]),
        ("all_larger", [(0.25, (1, 2), (2, 5)), (0.25, (1, 2), (3, 8)), (2.0, (2, 5), (3, 8))]),
    ],
)
def test_it_equals_its_formula(teachers, expected):
    texts = random_embeddings(0, layers=3, texts=7, width=8)
    found = NeighbourKL(weight=3.0, temperature=0.2, teachers=teachers)(texts, CHOSEN)
    wanted = 3.0 * sum(weight * slow(texts, *pair, 0.2) for weight, *pair in expected)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, texts.values, retain_graph=True)[0] for value in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
    assert (gradients[0][2] == 0).all()  # the largest learns nothing


def test_what_is_alike_costs_nothing():
    texts = random_embeddings(1, layers=1, texts=6, width=8).values
    twice = Embeddings(torch.cat([texts, 3 * texts]), (1, 2))
    chosen = (Weighted(SubModel(1, 8), 1.0), Weighted(SubModel(2, 8), 1.0))
    assert NeighbourKL()(twice, chosen).item() == pytest.approx(0, abs=1e-12)
    assert NeighbourKL()(Embeddings(twice.values[:, :1], (1, 2)), chosen).item() == 0


def test_bad_settings():
    for settings, message in (({"weight": -1}, "weight"), ({"temperature": 0}, "temperature")):
        with pytest.raises(InputError, match=message):
            NeighbourKL(**settings)
