"""Contrastive losses against the authors' own values (tests/golden/README.md)."""

import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import fixed
from golden import golden

from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.similarity.blocks import contrast

DOUBLE = {"rtol": 1e-9, "atol": 1e-11}
SINGLE = {"rtol": 2e-5, "atol": 1e-6}
GIST = {"blocks": ("query_docs", "query_queries", "doc_docs"), "doc_docs": "positives"}
CASES = ["gistembed", "gistembed_b3"]


def cosines(left, right):
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T


def gist_pairing(arrays, keep):
    """The blocks of a triplet batch [q-p | q-n | q-q | p-p], each (B, B), cut by `keep` of that (B, 4B)."""
    count = len(arrays["q"])
    qp, qn, qq, pp = keep.split(count, dim=1)
    itself = torch.eye(count, dtype=torch.bool)
    return fixed(
        torch.arange(count),
        torch.cat([qp | itself, qn], 1),
        query_queries=qq & ~itself,
        doc_docs=torch.cat([pp & ~itself, torch.ones_like(pp)], 1),
        owner=torch.arange(count).repeat(2),
    )


def table(query, positive, negative):
    """Cosines in the order of the reference, (B, 4B)."""
    blocks = ((query, positive), (query, negative), (query, query), (positive, positive))
    return torch.cat([cosines(left, right) for left, right in blocks], 1)


def kept(arrays, variant):
    """Which entries the reference leaves, by its rule."""
    if variant == "unguided":
        return torch.ones(len(arrays["q"]), 4 * len(arrays["q"]), dtype=torch.bool)
    guide = table(arrays["gq"], arrays["gp"], arrays["gn"])
    keep = guide <= guide.diagonal()[:, None]
    if variant == "guided_hard":  # and of those the ones that the student ranks above its positive
        student = table(arrays["q"], arrays["p"], arrays["n"])
        keep &= student > student.diagonal()[:, None]
    return keep


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("variant", ["guided", "guided_hard", "unguided"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, DOUBLE), (torch.float32, SINGLE)])
def test_gistembed(case, variant, dtype, near):
    arrays, config = golden(case)
    pairing = gist_pairing(arrays, kept(arrays, variant))
    leaves = [arrays[name].to(dtype).requires_grad_() for name in "qpn"]
    query, docs = leaves[0], torch.cat(leaves[1:])
    loss = InfoNCE(config["temperature"], **GIST)
    value = contrast(loss, query, docs, pairing)
    torch.testing.assert_close(value, arrays[f"loss_{variant}"].to(dtype), **near)
    for name, gradient in zip("qpn", torch.autograd.grad(value, leaves), strict=True):
        expected = arrays[f"grad_{name}_{variant}"]
        near_zero = near["atol"] if dtype == torch.float64 else 2e-5 * expected.abs().max().item()
        torch.testing.assert_close(gradient, expected.to(dtype), rtol=near["rtol"], atol=near_zero)
    assert arrays[f"grad_q_{variant}"].abs().max() > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_gistembed_at_another_temperature(case):
    arrays, _ = golden(case)
    pairing = gist_pairing(arrays, kept(arrays, "guided"))
    docs = torch.cat([arrays["p"], arrays["n"]])
    value = contrast(InfoNCE(0.05, **GIST), arrays["q"], docs, pairing)
    torch.testing.assert_close(value, arrays["loss_guided_t005"], **DOUBLE)


@pytest.mark.parametrize("case", CASES)
def test_two_directions_without_the_positives_of_others(case):
    """The same repository's baseline sums what we average: q -> own positive and all negatives, p -> q."""
    arrays, config = golden(case)
    count = len(arrays["q"])
    own = torch.eye(count, dtype=torch.bool)
    everyone = torch.ones_like(own)
    pairing = fixed(torch.arange(count), torch.cat([own, everyone], 1), doc_queries=everyone)
    loss = InfoNCE(config["temperature"], blocks=("query_docs", "doc_queries"), partition="separate")
    value = 2 * contrast(loss, arrays["q"], torch.cat([arrays["p"], arrays["n"]]), pairing)
    torch.testing.assert_close(value, arrays["loss_bidirectional_baseline"], **DOUBLE)


def test_hard_negatives():
    arrays, config = golden("hard_negative_nll")
    leaves = [arrays[name].requires_grad_() for name in ("q", "pos", "neg")]
    query, docs = leaves[0], torch.cat(leaves[1:])
    pairing = fixed(torch.arange(4), torch.ones(4, len(docs), dtype=torch.bool))
    value = contrast(InfoNCE(1 / config["scale"]), query, docs, pairing)
    torch.testing.assert_close(value, arrays["loss"], **DOUBLE)
    for name, gradient in zip(("q", "pos", "neg"), torch.autograd.grad(value, leaves), strict=True):
        torch.testing.assert_close(gradient, arrays[f"grad_{name}"], **DOUBLE)
    pairing = fixed(torch.arange(4), torch.ones(4, 4, dtype=torch.bool))
    value = contrast(InfoNCE(1 / 50), query, leaves[1], pairing)
    torch.testing.assert_close(value, arrays["loss_noneg_scale50"], **DOUBLE)
