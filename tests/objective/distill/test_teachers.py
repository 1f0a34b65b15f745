"""Who teaches whom: the definition by hand, and each distillation against pairs of cells one by one."""

import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import columns_links
from pairs_of import pair
from random_batches import random_embeddings

from embedtrain.objective.distill.kl import LayerKL, PrefixKL
from embedtrain.objective.distill.scores import ScoreKL
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.teachers import deeper, teachers_of
from embedtrain.types import Embeddings, InputError, SubModel, Weighted

GRID = [SubModel(layer, dim) for layer in (1, 2, 3) for dim in (2, 4, 8)]
CHOSEN = tuple(Weighted(sub, 1.0) for sub in GRID)
STAIRS = [SubModel(1, 2), SubModel(2, 4), SubModel(3, 8)]


@pytest.mark.parametrize(
    ("sub", "subs", "next_", "all_"),
    [
        ((1, 2), STAIRS, [(2, 4)], [(2, 4), (3, 8)]),
        ((2, 4), STAIRS, [(3, 8)], [(3, 8)]),
        ((3, 8), STAIRS, [], []),
        ((2, 4), GRID, [(2, 8)], [(2, 8), (3, 4), (3, 8)]),
        ((1, 8), GRID, [(2, 8)], [(2, 8), (3, 8)]),
        ((1, 8), [SubModel(1, 8), SubModel(3, 4)], [(3, 4)], [(3, 4)]),  # none is larger in both
    ],
)
def test_teachers_by_hand(sub, subs, next_, all_):
    for which, expected in (("next", next_), ("all_larger", all_)):
        for order in (subs, subs[::-1]):
            assert [tuple(one) for one in teachers_of(SubModel(*sub), order, which)] == expected
    largest = () if SubModel(*sub) == max(subs) else (max(subs),)
    assert teachers_of(SubModel(*sub), subs, "largest") == largest


def test_layers_by_hand():
    assert [deeper(2, (1, 2, 4, 6), which) for which in ("largest", "next", "all_larger")] == [
        (6,),
        (4,),
        (4, 6),
    ]
    assert deeper(6, (1, 2, 6), "next") == ()


@pytest.mark.parametrize("which", ["largest", "next", "all_larger"])
@pytest.mark.parametrize("kind", [PrefixKL, LayerKL])
def test_kl_is_the_mean_over_teachers(kind, which):
    texts = random_embeddings(3, layers=3, texts=5, width=8)
    found = kind(detach_teacher=True, teachers=which)(texts, CHOSEN)
    expected, layers = 0.0, (1, 2, 3)
    cells = GRID if kind is PrefixKL else [SubModel(layer, 8) for layer in layers]
    scale, factor = (1.0, 0.3) if kind is PrefixKL else (0.3, 0.3)
    for sub in cells:
        above = deeper(sub.layer, layers, which)
        for layer in above:
            wanted = F.softmax(texts.raw(SubModel(layer, sub.dim)) / scale, dim=-1)
            given = F.log_softmax(texts.raw(sub) / scale, dim=-1)
            expected = expected + factor * (wanted * (wanted.log() - given)).sum(1).mean() / len(above)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("which", ["largest", "next", "all_larger"])
def test_scores_are_distilled_from_each_teacher(which):
    """The whole objective, against the sum over pairs of student and teacher by autograd."""
    query, docs = (random_embeddings(seed, layers=3, texts=6, width=8) for seed in (4, 5))
    values = [part.values.detach().clone().requires_grad_() for part in (query, docs)]
    sides = [Embeddings(value, (1, 2, 3)) for value in values]
    pairing = pair(columns_links(6, 1))
    objective = Objective(InfoNCE(temperature=1.0), ScoreKL(temperature=0.5, teachers=which))
    value = objective(*sides, pairing, CHOSEN)
    value.total.backward()
    gradients = [part.grad.clone() for part in values]
    plain = [part.detach().clone().requires_grad_() for part in values]
    again = [Embeddings(part, (1, 2, 3)) for part in plain]
    logits = {sub: again[0].at(sub) @ again[1].at(sub).T for sub in GRID}
    total = sum(F.cross_entropy(one, pairing.target) for one in logits.values())
    learned = 0.0
    for sub in GRID:
        above = teachers_of(sub, GRID, which)
        for teacher in above:
            wanted = F.softmax(logits[teacher].detach() / 0.5, dim=1)
            given = F.log_softmax(logits[sub] / 0.5, dim=1)
            learned = learned + (wanted * (wanted.log() - given)).sum(1).mean() / len(above)
    torch.testing.assert_close(value.distillation, learned.detach())
    torch.testing.assert_close(value.total.detach(), (total + learned).detach())
    (total + learned).backward()
    for found, expected in zip(gradients, plain, strict=True):
        torch.testing.assert_close(found, expected.grad)


def test_another_word_is_refused():
    for kind in (PrefixKL, LayerKL, ScoreKL):
        with pytest.raises(InputError, match="teachers must be one of"):
            kind(teachers="smallest")
