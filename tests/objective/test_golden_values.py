"""Our formulas against arrays that the authors' own code computed (tests/golden/README.md)."""

import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import fixed
from golden import golden
from torch import nn

from embedtrain.objective import plan
from embedtrain.objective.distill.kl import PrefixKL
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.matryoshka import Objective
from embedtrain.types import Embeddings

DOUBLE = {"rtol": 1e-9, "atol": 1e-11}
SINGLE = {"rtol": 2e-5, "atol": 0.0}


def pool(hidden, mask):
    """Mean over the real tokens, (C, L, B, T, D) -> (C, L, B, D)."""
    weight = mask[:, None, :, :, None].to(hidden.dtype)
    return (hidden * weight).sum(3) / weight.sum(3)


def in_columns(pooled, layers, scores=None):
    """Columns (C, L, B, D) of anchors, positives, negatives as queries, documents and their pairing."""
    columns, kept, rows, width = pooled.shape
    docs = pooled[1:].transpose(0, 1).reshape(kept, (columns - 1) * rows, width)
    allowed = torch.ones(rows, docs.shape[1], dtype=torch.bool)
    owner = torch.arange(docs.shape[1]) % rows
    pairing = fixed(torch.arange(rows), allowed, scores=scores, owner=owner)
    return Embeddings(pooled[0], layers), Embeddings(docs, layers), pairing


STARBUCKS = ["starbucks_sts_768_mnrl", "starbucks_sts_small_mnrl_triplet", "starbucks_sts_small_cosent"]


def starbucks(case, dtype=torch.float64):
    arrays, config = golden(case)
    layers = config["layers"]
    pairs = plan.FixedPairs(
        list(zip(layers, config["dims"], strict=True)),
        num_layers=config["num_layers"],
        width=config["hidden"],
    )
    if "hidden_states" in arrays:
        leaf = arrays["hidden_states"].to(dtype).requires_grad_()
        pooled = pool(leaf, arrays["attention_mask"])[:, layers]
    else:
        leaf = pooled = arrays["pooled"].to(dtype).requires_grad_()
    batch = in_columns(pooled, tuple(layers), arrays["labels"] if config["inner"] == "cosent" else None)
    loss = CoSENT(1 / config["scale"]) if config["inner"] == "cosent" else InfoNCE(1 / config["scale"])
    return arrays, leaf, (*batch, pairs(0)), loss


@pytest.mark.parametrize("case", STARBUCKS)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])
def test_starbucks_totals(case, dtype, near):
    arrays, _, batch, loss = starbucks(case, dtype)
    for distill, name in (
        (PrefixKL(), "loss_total"),
        (PrefixKL(weight=0.5, factor=0.7), "loss_total_klw05_T07"),
        (None, "loss_total_no_kl"),
    ):
        total = Objective(loss, distill)(*batch).total
        torch.testing.assert_close(total, arrays[name].to(dtype), **near)


@pytest.mark.parametrize("case", STARBUCKS)
def test_starbucks_parts(case):
    arrays, _, batch, loss = starbucks(case)
    value = Objective(loss, PrefixKL())(*batch)
    *pairs, final = (part for _, part in value.parts)
    torch.testing.assert_close(torch.stack(pairs), arrays["loss_pairs"], **DOUBLE)
    torch.testing.assert_close(final, arrays["loss_final_layer"], **DOUBLE)
    torch.testing.assert_close(value.distillation, 0.3 * arrays["kl_pairs"].sum(), **DOUBLE)
    query, docs, _, chosen = batch
    texts = Embeddings(torch.cat([query.values, docs.values], 1), query.layers)
    for item, expected in zip(chosen, arrays["kl_pairs"], strict=False):
        value = PrefixKL(factor=1.0)(texts, (item, chosen[-1]))
        torch.testing.assert_close(value, expected, **DOUBLE)


@pytest.mark.parametrize("case", STARBUCKS)
@pytest.mark.parametrize(("distill", "name"), [(PrefixKL(), "grad_total"), (None, "grad_total_no_kl")])
def test_starbucks_gradients(case, distill, name):
    arrays, leaf, batch, loss = starbucks(case)
    expected = arrays[name] if name in arrays else arrays[f"{name}_pooled"]
    gradient = torch.autograd.grad(Objective(loss, distill)(*batch).total, leaf)[0]
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
