"""Losses over vectors against arrays that the authors' own code computed (tests/golden/README.md)."""

import pytest
import torch
from fixed_pairing import fixed
from golden import golden
from random_batches import random_embeddings

from embedtrain.objective import plan
from embedtrain.objective.distill.espresso import Espresso, compressed
from embedtrain.objective.distill.kl import LayerKL
from embedtrain.objective.losses.angle import AnglE, Angle, AnglETriples
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.regularizers import OPL
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity.blocks import contrast
from embedtrain.types import Embeddings, SubModel, Weighted

DOUBLE = {"rtol": 1e-9, "atol": 1e-11}


def equal_with_gradient(value, leaf, expected, expected_gradient):
    torch.testing.assert_close(value, expected, **DOUBLE)
    gradient = torch.autograd.grad(value, leaf)[0]
    assert expected_gradient.abs().max() > 1e-4
    torch.testing.assert_close(gradient, expected_gradient, **DOUBLE)


def pairs_of(count, scores=None):
    """Query i and document i, everything allowed."""
    return fixed(torch.arange(count), torch.ones(count, count, dtype=torch.bool), scores=scores)


SCORED = {
    "cosine": (CoSENT(), "labels_graded"),
    "cosine-mixture": (AnglE(1.0, 0.0, 0.0), "labels_graded"),
    "angle": (Angle(), "labels_graded"),
    "angle-mixture": (AnglE(0.0, 0.0, 1.0), "labels_graded"),
    "ibn": (AnglE(0.0, 1.0, 0.0), "labels_binary"),
    "combined": (AnglE(1.0, 30.0, 1.0), "labels_binary"),
}


@pytest.mark.parametrize("name", SCORED)
def test_angle_pairs_with_labels(name):
    arrays, _ = golden("angle_losses_A")
    loss, labels = SCORED[name]
    leaf = arrays["embeddings"].requires_grad_()
    value = loss(leaf[::2], leaf[1::2], pairs_of(4, scores=arrays[labels][::2, 0]))
    part = name.partition("-")[0]
    equal_with_gradient(value, leaf, arrays[f"loss_{part}"], arrays[f"grad_{part}"])


def test_angle_pairs_without_labels_are_infonce():
    arrays, config = golden("angle_losses_B")
    leaf = arrays["embeddings"].requires_grad_()
    value = contrast(InfoNCE(1 / config["weights"]["ibn_tau"]), leaf[::2], leaf[1::2], pairs_of(5))
    equal_with_gradient(value, leaf, arrays["loss_combined"], arrays["grad_combined"])


def test_angle_triples():
    arrays, config = golden("angle_losses_C")
    weights = config["weights"]
    loss = AnglETriples(
        weights["cosine"], weights["ibn"], weights["cln"], weights["angle"], 1 / config["tau"]
    )
    leaf = arrays["embeddings"].requires_grad_()
    pairing = fixed(torch.arange(4), torch.ones(4, 8, dtype=torch.bool), owner=torch.arange(4).repeat(2))
    value = loss(leaf[::3], torch.cat([leaf[1::3], leaf[2::3]]), pairing)
    equal_with_gradient(value, leaf, arrays["loss_combined"], arrays["grad_combined"])


def layered(arrays):
    """Leaf, queries and documents of zig-zag pairs at every state, of one token each, and their pairing."""
    leaf = arrays["hidden_states"].requires_grad_()
    pooled = leaf[:, :, 0]  # (L + 1, 2B, D)
    layers = tuple(range(len(leaf)))
    query, docs = Embeddings(pooled[:, ::2], layers), Embeddings(pooled[:, 1::2], layers)
    return leaf, query, docs, pairs_of(4, scores=arrays["labels_binary"][::2, 0])


def espresso(config):
    size = config["compression_size"]
    chooser = plan.Espresso(size, layer_offset=0, num_layers=config["n_layers"], width=12)
    inner = config["inner"]
    return size, chooser, AnglE(inner["cosine_w"], inner["ibn_w"], inner["angle_w"], 1 / inner["tau"])


@pytest.mark.parametrize(("distilled", "name"), [(True, "ese"), (False, "express_only")])
def test_espresso(distilled, name):
    arrays, config = golden("ese_loss")
    size, chooser, loss = espresso(config)
    leaf, *batch = layered(arrays)
    distill = Espresso(size, config["kl_temperature"], config["mse_weight"]) if distilled else None
    value = Objective(loss, distill)(*batch, chooser(0)).total
    equal_with_gradient(value, leaf, arrays[f"loss_{name}"], arrays[f"grad_{name}"])


def test_espresso_weighs_layers_as_its_authors_code():
    _, config = golden("ese_loss")
    _, chooser, _ = espresso(config)
    *students, last, full = chooser(0)
    assert [item.sub for item in students] == [SubModel(layer, 4) for layer in (0, 1, 2)]
    assert [item.weight * 3 for item in students] == pytest.approx(config["layer_weights"], rel=1e-12)
    assert (last, full) == (Weighted(SubModel(4, 4), 1.0), Weighted(SubModel(4, 12), 1.0))


def test_espresso_targets():
    arrays, _ = golden("ese_loss")
    pooled = arrays["hidden_states"][:, :, 0]
    for state, target in zip(pooled[[4, 0, 1, 2]], arrays["pca_targets"], strict=True):
        torch.testing.assert_close(compressed(state, 4), target, **DOUBLE)
    torch.testing.assert_close(compressed(pooled[4], 12).abs(), arrays["pca_abs_full"], **DOUBLE)


def test_espresso_of_one_layer():
    arrays, _ = golden("ese_loss")
    leaf = arrays["hidden_states"][4, :, 0].requires_grad_()
    value = Espresso(4)(Embeddings(leaf[None], (4,)), (Weighted(SubModel(4, 4), 1.0),))
    torch.testing.assert_close(value, arrays["distill_loss_last"], **DOUBLE)
    gradient = torch.autograd.grad(value, leaf)[0]
    torch.testing.assert_close(gradient[:, :4], arrays["distill_grad_last"], **DOUBLE)
    assert not gradient[:, 4:].any()


@pytest.mark.parametrize(("version", "power"), [("v0.3.5", 2), ("v0.3.10", 1)])
def test_two_dmse(version, power):
    arrays, config = golden("2dmse_loss")
    chooser = plan.TwoDMSE([config["sampled_dim"]], version, num_layers=config["n_layers"], width=16)
    step = next(step for step in range(100) if chooser(step)[0].sub.layer == config["sampled_layer"])
    inner = config["inner"]
    loss = AnglE(inner["cosine_w"], inner["ibn_w"], inner["angle_w"], 1 / inner["cosine_tau"])
    distill = LayerKL(temperature=config["kl_temperature"], power=power, detach_teacher=False)
    leaf, *batch = layered(arrays)
    value = Objective(loss, distill)(*batch, chooser(step))
    name = version.replace(".", "")
    equal_with_gradient(value.total, leaf, arrays[f"loss_{name}"], arrays[f"grad_{name}"])
    by_sub = dict(value.parts)
    subs = [SubModel(6, 16), SubModel(2, 16), SubModel(6, 4), SubModel(2, 4)]
    torch.testing.assert_close(torch.stack([by_sub[sub] for sub in subs]), arrays["parts"][:4], **DOUBLE)
    torch.testing.assert_close(value.distillation, arrays["parts"][4], **DOUBLE)


def test_two_dmse_at_another_temperature_differs_by_the_power():
    texts = random_embeddings(0, layers=2, texts=6, width=8)
    chosen = (Weighted(SubModel(1, 8), 1.0), Weighted(SubModel(2, 8), 1.0))
    once, twice = (LayerKL(temperature=0.5, power=power)(texts, chosen) for power in (1, 2))
    torch.testing.assert_close(once * 0.5, twice, rtol=1e-12, atol=0)


def sentence_transformers_331():
    """Case -> (plan, distillation): from block 1 on, weights 1 / (1 + place), teacher not detached."""
    size, dims = {"num_layers": 4, "width": 12}, [12, 6, 3]
    linear = {"layers_per_step": -1, "layer_weighting": "linear", **size}
    return {
        "matryoshka": (plan.Dims(dims, **size), None),
        "matryoshka_weighted": (plan.Dims(dims, [0.5, 1.5, 2.5], **size), None),
        "adaptive": (plan.Random2d([12], **linear), LayerKL(detach_teacher=False)),
        "adaptive_nokl": (plan.Random2d([12], **linear), LayerKL(weight=0.0)),
        "2d": (plan.Random2d(dims, dims_per_step=-1, **linear), LayerKL(detach_teacher=False)),
    }


@pytest.mark.parametrize("case", sentence_transformers_331())
def test_sentence_transformers_331(case):
    arrays, _ = golden("st_adaptive_layer_st331")
    chooser, distill = sentence_transformers_331()[case]
    leaf, mask = arrays["hidden_states"].requires_grad_(), arrays["attention_mask"].double()
    pooled = torch.einsum("clbtd,cbt->clbd", leaf, mask / mask.sum(-1, keepdim=True))
    query, docs = (Embeddings(column, (0, 1, 2, 3, 4)) for column in pooled)
    value = Objective(InfoNCE(0.05), distill)(query, docs, pairs_of(4), chooser(0)).total
    torch.testing.assert_close(value, arrays[f"loss_{case}"], **DOUBLE)
    if f"grad_{case}" in arrays:
        equal_with_gradient(value, leaf, arrays[f"loss_{case}"], arrays[f"grad_{case}"])


def test_orthogonal_projection():
    arrays, _ = golden("m2_orthogonal_projection")
    query, docs = arrays["emb1"].requires_grad_(), arrays["emb2"].requires_grad_()
    labels = arrays["labels"]
    value = OPL("scores")(query, docs, pairs_of(5, scores=labels))
    torch.testing.assert_close(value, arrays["loss"], **DOUBLE)
    for ours, name in zip(torch.autograd.grad(value, [query, docs]), ("grad1", "grad2"), strict=True):
        torch.testing.assert_close(ours, arrays[name], **DOUBLE)
    alone = [OPL("scores")(query[[row]], docs[[row]], pairs_of(1, scores=labels[[row]])) for row in range(5)]
    torch.testing.assert_close(torch.stack(alone), arrays["loss_singletons"], **DOUBLE)
    torch.testing.assert_close(value.float(), arrays["loss_bf16_path"], rtol=0, atol=1e-2)  # not reproduced
