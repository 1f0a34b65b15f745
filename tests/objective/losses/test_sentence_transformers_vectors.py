"""Losses over vectors against sentence-transformers' own on equal vectors, and what goes wrong there alone.

The model is a table of vectors, so value and gradients compare to the last digits. What goes wrong there:

- A loss that gives a dict (GlobalOrthogonalRegularizationLoss) cannot stand inside MatryoshkaLoss.
- Distillation through a projection cannot either: the projection has the full width.
- Distillation without one cuts the target and does not normalise it: a student equal to its teacher is told
  that it is wrong at every smaller dim, and one that emits longer vectors even at the full one.
- Matryoshka normalises before the loss: margins of dot products beyond 2 are out of reach.
- AnglE takes an odd dim by padding it, which pairs other coordinates than training at an even one would.
- Losses cannot be summed in one run.
"""

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import (
    AnglELoss,
    CoSENTLoss,
    DistillKLDivLoss,
    EmbedDistillLoss,
    GlobalOrthogonalRegularizationLoss,
    MarginMSELoss,
    MatryoshkaLoss,
    MSELoss,
    TripletDistanceMetric,
    TripletLoss,
)
from sentence_transformers.util import pairwise_cos_sim, pairwise_dot_score
from torch import nn
from vector_tables import DIMS, WEIGHTS, D, VectorTable, pairing_of, sides

from embedtrain.objective import plan
from embedtrain.objective.distill.embedding import EmbeddingDistill
from embedtrain.objective.losses.angle import AnglE, Angle
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.regularizers import GOR
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.losses.terms import Sum, Term
from embedtrain.objective.losses.triples import MarginMSE, TeacherKL, Triplet
from embedtrain.objective.matryoshka import Objective
from embedtrain.types import Embeddings, InputError

B, G = 6, 10
SIZE = {"num_layers": 1, "width": D}
SCORES = torch.tensor([0.1, 0.9, 0.5, 0.5, 0.0, 1.0], dtype=torch.float64)


def same(model, value, expected, parameters=()):
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(total, [model.vectors, *parameters]) for total in (value, expected)]
    for mine, wanted in zip(*gradients, strict=True):
        assert wanted.abs().max() > 1e-6
        torch.testing.assert_close(mine, wanted, rtol=1e-8, atol=1e-11)


def teacher_scores(columns, seed=5):
    """(B, columns - 1) as their labels have them."""
    generator = torch.Generator().manual_seed(seed)
    return 5 * torch.randn(B, columns - 1, generator=generator, dtype=torch.float64)


CASES = {
    "cosent": (2, CoSENT(1 / 7.0), lambda model: CoSENTLoss(model, 7.0), SCORES),
    "angle": (2, Angle(1 / 7.0), lambda model: AnglELoss(model, 7.0), SCORES),
    "angle-negatives": (4, Angle(1 / 7.0, "negatives"), lambda model: AnglELoss(model, 7.0), None),
    "triplet-cosine": (
        3, Triplet(0.7), lambda model: TripletLoss(model, TripletDistanceMetric.COSINE, 0.7), None,
    ),
    "triplet-euclidean": (3, Triplet(5.0, "euclidean"), TripletLoss, None),
    "margin-mse": (3, MarginMSE(), MarginMSELoss, teacher_scores(3)),
    "margin-mse-many": (5, MarginMSE(), MarginMSELoss, teacher_scores(5)),
    "margin-mse-cosine": (
        4, MarginMSE("cosine"), lambda model: MarginMSELoss(model, pairwise_cos_sim), teacher_scores(4),
    ),
    "kl": (
        4, TeacherKL(2.0), lambda model: DistillKLDivLoss(model, pairwise_dot_score, 2.0), teacher_scores(4),
    ),
    "kl-temperatures": (
        3, TeacherKL(0.1, 3.0, "cosine"),
        lambda model: DistillKLDivLoss(
            model, pairwise_cos_sim, student_temperature=0.1, teacher_temperature=3.0
        ),
        teacher_scores(3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equal_value_and_gradient(case):
    columns, ours, theirs, labels = CASES[case]
    model = VectorTable(columns * B)
    facts = {}
    if labels is not None:
        facts = {"scores": labels} if labels.dim() == 1 else {"teacher": labels.T.flatten()}
    query, docs = (side.values[0] for side in sides(model, B))
    value = ours(query, docs, pairing_of(columns, B, **facts))
    same(model, value, theirs(model)(model.features(columns), labels))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 0.0), (0.0, 2.0)])
def test_spread_out_regulariser(weights):
    model = VectorTable(2 * B)
    expected = GlobalOrthogonalRegularizationLoss(
        model, mean_weight=weights[0] or None, second_moment_weight=weights[1] or None
    )(model.features(2))
    query, docs = (side.values[0] for side in sides(model, B))
    same(model, GOR(*weights)(query, docs, pairing_of(2, B)), sum(expected.values()))


def test_dict_losses_fail_inside_theirs_and_not_inside_ours():
    model = VectorTable(2 * B)
    inner = GlobalOrthogonalRegularizationLoss(model)
    with pytest.raises(TypeError, match="dict"):
        MatryoshkaLoss(model, inner, DIMS)(model.features(2), torch.zeros(B))
    value = Objective(GOR())(*sides(model, B), pairing_of(2, B), plan.Dims(DIMS, WEIGHTS, **SIZE)(0)).total
    expected = 0.0
    for dim, weight in zip(DIMS, WEIGHTS, strict=True):
        cut = [model.vectors[:B, :dim], model.vectors[B:, :dim]]
        expected = expected + weight * sum(inner.compute_loss_from_embeddings(cut).values())
    same(model, value, expected)


def guided(width):
    """Unit targets of a teacher as theirs takes them (B, columns, width), and as ours does (2B, width)."""
    targets = F.normalize(VectorTable(2 * B, width, seed=7).vectors.detach(), dim=-1)
    return torch.stack([targets[:B], targets[B:]], 1), targets


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_embedding_distillation_through_a_projection(distance):
    model = VectorTable(2 * B)
    labels, targets = guided(G)
    theirs = EmbedDistillLoss(model, distance, projection_dim=G).double()
    ours = EmbeddingDistill(distance, normalize=False, width=D, guide_width=G).double()
    ours.projection = theirs.projection.weight
    nn.init.zeros_(theirs.projection.bias)  # ours has none
    texts = Embeddings(model.vectors[None], (1,))
    value = ours(texts, plan.Full(**SIZE)(0), targets)
    same(model, value, theirs(model.features(2), labels), [theirs.projection.weight])


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_embedding_distillation_of_one_width(distance):
    model = VectorTable(2 * B)
    labels, targets = guided(D)
    ours = EmbeddingDistill(distance, projection=False, normalize=False, width=D, guide_width=D)
    value = ours(Embeddings(model.vectors[None], (1,)), plan.Full(**SIZE)(0), targets)
    same(model, value, EmbedDistillLoss(model, distance)(model.features(2), labels))


def test_a_projection_fails_inside_theirs_and_not_inside_ours():
    model = VectorTable(2 * B)
    labels, targets = guided(G)
    theirs = EmbedDistillLoss(model, "mse", projection_dim=G).double()
    with pytest.raises(RuntimeError, match="shapes"):
        MatryoshkaLoss(model, theirs, DIMS)(model.features(2), labels)
    ours = EmbeddingDistill("mse", width=D, guide_width=G).double()
    value = ours(Embeddings(model.vectors[None], (1,)), plan.Dims(DIMS, WEIGHTS, **SIZE)(0), targets)
    expected = 0.0
    for dim, weight in zip(DIMS, WEIGHTS, strict=True):
        student = F.linear(F.normalize(model.vectors[:, :dim], dim=-1), ours.projection[:, :dim])
        expected = expected + weight * F.mse_loss(student, targets)
    same(model, value, expected, [ours.projection])


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_their_targets_lose_their_norm_with_the_cut_and_ours_do_not(length):
    model = VectorTable(2 * B)
    targets = F.normalize(model.vectors.detach(), dim=-1)
    with torch.no_grad():
        model.vectors.copy_(length * targets)  # a student equal to its teacher, but for its length
    labels = torch.stack([model.vectors[:B], model.vectors[B:]], 1).detach()
    theirs = [MatryoshkaLoss(model, MSELoss(model), [dim])(model.features(2), labels) for dim in (4, 8, 16)]
    wrong = [bool(value.detach() > 0.001) for value in theirs]
    assert wrong == [True, True, length > 1]
    ours = EmbeddingDistill("mse", projection=False, width=D, guide_width=D)
    value = ours(Embeddings(model.vectors[None], (1,)), plan.Dims([4, 8, 16], **SIZE)(0), targets)
    assert value < 1e-12


def test_dot_products_are_lost_inside_theirs_and_reach_the_loss_inside_ours():
    model = VectorTable(3 * B)
    labels = teacher_scores(3)
    full = plan.Dims([D], **SIZE)(0)
    ours = Objective(MarginMSE())(*sides(model, B), pairing_of(3, B, teacher=labels.T.flatten()), full).total
    plain = MarginMSELoss(model)(model.features(3), labels)
    same(model, ours, plain)
    inside = MatryoshkaLoss(model, MarginMSELoss(model), [D])(model.features(3), labels)
    query, docs = (F.normalize(side.values[0], dim=-1) for side in sides(model, B))
    unit = MarginMSE()(query, docs, pairing_of(3, B, teacher=labels.T.flatten()))
    torch.testing.assert_close(inside, unit)  # theirs sees unit vectors
    assert not torch.isclose(inside, plain)


def test_odd_dims_are_padded_by_theirs_and_refused_by_ours():
    model = VectorTable(2 * B, width=5)
    assert torch.isfinite(AnglELoss(model)(model.features(2), SCORES))
    for loss in (Angle(), AnglE()):
        with pytest.raises(InputError, match="dim 5 is odd"):
            loss(*(side.values[0] for side in sides(model, B)), pairing_of(2, B, scores=SCORES))


def test_losses_can_be_summed_over_every_dim():
    model = VectorTable(3 * B)
    chosen = plan.Dims(DIMS, WEIGHTS, **SIZE)(0)
    pairing = pairing_of(3, B, scores=SCORES, teacher=teacher_scores(3).T.flatten())
    parts = [(InfoNCE(), 1.0), (CoSENT(), 0.5), (Triplet(), 2.0), (MarginMSE(), 0.1), (GOR(), 3.0)]
    value = Objective(Sum([Term(*part) for part in parts]))(*sides(model, B), pairing, chosen).total
    alone = [weight * Objective(loss)(*sides(model, B), pairing, chosen).total for loss, weight in parts]
    same(model, value, sum(alone))
