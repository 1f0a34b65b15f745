"""Our formulas against arrays that the authors' own code computed (tests/golden/README.md)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import fixed
from golden import golden
from torch import nn

from embedtrain.objective import plan
from embedtrain.objective.distill.kl import PrefixKL
from embedtrain.objective.distill.scores import ScoreKL
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.matryoshka import Objective
from embedtrain.types import Embeddings

DOUBLE = {"rtol": 1e-9, "atol": 1e-11}
SINGLE = {"rtol": 2e-5, "atol": 0.0}


def pool(hidden, mask):
    """Mean over the real tokens, (..., L, B, T, D) -> (..., L, B, D)."""
    weight = mask[..., None, :, :, None].to(hidden.dtype)
    return (hidden * weight).sum(-2) / weight.sum(-2)


def in_columns(pooled, layers, scores=None):
    """Columns (C, L, B, D) of anchors, positives, negatives as queries, documents and their pairing."""
    columns, kept, rows, width = pooled.shape
    docs = pooled[1:].transpose(0, 1).reshape(kept, (columns - 1) * rows, width)
    allowed = torch.ones(rows, docs.shape[1], dtype=torch.bool)
    owner = torch.arange(docs.shape[1]) % rows
    pairing = fixed(torch.arange(rows), allowed, scores=scores, owner=owner)
    return Embeddings(pooled[0], layers), Embeddings(docs, layers), pairing


class Starbucks(NamedTuple):
    """A batch of the authors, what of it is differentiated, its objectives by the names of their totals."""

    arrays: dict
    leaves: dict  # by the name of their gradient
    batch: tuple
    loss: nn.Module
    totals: dict
    distill: Callable  # of a weight


def starbucks_sts(case, dtype):
    arrays, config = golden(case)
    layers, sizes = config["layers"], {"num_layers": config["num_layers"], "width": config["hidden"]}
    pairs = plan.FixedPairs(list(zip(layers, config["dims"], strict=True)), **sizes)
    if "hidden_states" in arrays:
        leaf = arrays["hidden_states"].to(dtype).requires_grad_()
        pooled = pool(leaf, arrays["attention_mask"])[:, layers]
    else:
        leaf = pooled = arrays["pooled"].to(dtype).requires_grad_()
    batch = in_columns(pooled, tuple(layers), arrays["labels"] if config["inner"] == "cosent" else None)
    loss = (CoSENT if config["inner"] == "cosent" else InfoNCE)(1 / config["scale"])
    totals = {"": PrefixKL(), "_klw05_T07": PrefixKL(weight=0.5, factor=0.7), "_no_kl": None}
    return Starbucks(arrays, {"total": leaf}, (*batch, pairs(0)), loss, totals, partial(PrefixKL, factor=1.0))


def starbucks_retrieval(case, dtype):
    arrays, config = golden(case)
    layers, dims, temperature = config["layer_list"], config["embedding_dim_list"], config["temperature"]
    leaves, texts = {}, []
    for side in ("query", "passage"):
        leaves[side] = arrays[f"{side}_hidden_states"].to(dtype).requires_grad_()
        hidden = leaves[side][layers]
        pooled = hidden[:, :, 0] if config["pooling"] == "cls" else pool(hidden, arrays[f"{side}_mask"])
        if config["normalize"]:  # in full, cut after: the dot product sees that prefixes are shorter than 1
            pooled = F.normalize(pooled, dim=-1)
        texts.append(Embeddings(pooled, tuple(layers)))
    rows, columns = (item.values.shape[1] for item in texts)
    target = torch.arange(0, columns, config["group_size"])
    pairing = fixed(target, torch.ones(rows, columns, dtype=torch.bool))
    pairs = plan.FixedPairs(list(zip(layers, dims, strict=True)), num_layers=layers[-1], width=dims[-1])
    distill = partial(ScoreKL, temperature=temperature, similarity="dot")
    totals = {"": distill(1.0), "_kl03": distill(0.3), "_no_kl": distill(0.0)}
    loss = InfoNCE(temperature, similarity="dot")
    return Starbucks(arrays, leaves, (*texts, pairing, pairs(0)), loss, totals, distill)


def starbucks(case, dtype=torch.float64):
    return (starbucks_sts if "_sts_" in case else starbucks_retrieval)(case, dtype)


every_starbucks = pytest.mark.parametrize(
    "case",
    ["starbucks_sts_768_mnrl", "starbucks_sts_small_mnrl_triplet", "starbucks_sts_small_cosent",
     "starbucks_retrieval_cls", "starbucks_retrieval_mean_temp"],
)  # fmt: skip


@every_starbucks
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])
def test_starbucks_totals(case, dtype, near):
    arrays, _, batch, loss, totals, _ = starbucks(case, dtype)
    for name, distill in totals.items():
        expected = arrays[f"loss_total{name}"].to(dtype)
        torch.testing.assert_close(Objective(loss, distill)(*batch).total, expected, **near)


@every_starbucks
def test_starbucks_parts(case):
    arrays, _, (query, docs, pairing, chosen), loss, _, distill = starbucks(case)
    value = Objective(loss, distill(0.5))(query, docs, pairing, chosen)
    *pairs, final = (part for _, part in value.parts)
    torch.testing.assert_close(torch.stack(pairs), arrays["loss_pairs"], **DOUBLE)
    last = "loss_full" if "loss_full" in arrays else "loss_final_layer"
    torch.testing.assert_close(final, arrays[last], **DOUBLE)
    torch.testing.assert_close(value.distillation, 0.5 * arrays["kl_pairs"].sum(), **DOUBLE)
    for item, expected in zip(chosen, arrays["kl_pairs"], strict=False):
        value = Objective(loss, distill(1.0))(query, docs, pairing, (item, chosen[-1]))
        torch.testing.assert_close(value.distillation, expected, **DOUBLE)


@every_starbucks
@pytest.mark.parametrize("suffix", ["", "_no_kl"])
def test_starbucks_gradients(case, suffix):
    arrays, leaves, batch, loss, totals, _ = starbucks(case)
    gradients = torch.autograd.grad(Objective(loss, totals[suffix])(*batch).total, [*leaves.values()])
    for name, gradient in zip(leaves, gradients, strict=True):
        key = f"grad_{name}{suffix}"
        expected = arrays[key] if key in arrays else arrays[f"{key}_pooled"]
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(gradient, expected, **DOUBLE)


class ClassHeads(nn.Module):
    """Cross-entropy of a linear classifier on the prefix: one head a size (MRL), or one for all (MRL-E)."""

    def __init__(self, heads, classes, smoothing):
        super().__init__()
        self.heads, self.classes, self.smoothing = heads, classes, smoothing

    def forward(self, query, docs, pairing):
        weight, bias = self.heads[query.shape[1]]
        return F.cross_entropy(F.linear(query, weight, bias), self.classes, label_smoothing=self.smoothing)


@pytest.mark.parametrize("kind", ["mrl", "mrl_e"])
@pytest.mark.parametrize(("weighted", "smoothing"), [(False, 0.0), (True, 0.1)])
def test_matryoshka_sum_over_sizes(kind, weighted, smoothing):
    arrays, config = golden("mrl_ce")
    heads = {}
    for place, size in enumerate(config["nesting"]):
        head = f"w_{kind}/nesting_classifier_{place if kind == 'mrl' else 0}"
        heads[size] = arrays[f"{head}.weight"][:, :size], arrays[f"{head}.bias"]
    leaf = arrays["x"].requires_grad_()
    texts = Embeddings(leaf[None], (1,))
    chosen = plan.Dims(config["nesting"], config["importance"] if weighted else None, num_layers=1, width=16)(
        0
    )
    nobody = fixed(torch.arange(6), torch.eye(6, dtype=torch.bool))
    value = Objective(ClassHeads(heads, arrays["y"], smoothing))(texts, texts, nobody, chosen)
    name = f"{kind}_weighted_smooth" if weighted else kind
    torch.testing.assert_close(value.total, arrays[f"loss_{name}"], **DOUBLE)
    gradient = torch.autograd.grad(value.total, leaf)[0]
    torch.testing.assert_close(gradient, arrays[f"grad_x_{name}"], **DOUBLE)
    if not weighted:
        for (_, part), logits in zip(value.parts, arrays[f"logits_{kind}"], strict=True):
            torch.testing.assert_close(part, F.cross_entropy(logits, arrays["y"]), **DOUBLE)
