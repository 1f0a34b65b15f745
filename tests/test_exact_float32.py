"""What counts on 24 bits of float32 gets them, whatever was allowed elsewhere: TF32, or bfloat16 on a CPU."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from random_batches import random_links

from embedtrain.devices import exact_float32
from embedtrain.doctor import probes
from embedtrain.model.folder.export import load_encoder
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.rules import MarginPos
from embedtrain.types import Embeddings, Guide, SubModel, Weighted
from embedtrain.vectors.topk import Exact, in_memory

BACKENDS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


def precisions():
    return {backend.fp32_precision for backend in BACKENDS}


@pytest.fixture
def seen(monkeypatch):
    """The precisions that products saw, where others were allowed before."""
    found = set()

    def noted(name):
        product = getattr(torch.Tensor, name)

        def run(*args, **kwargs):
            found.update(precisions())
            return product(*args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, run)

    noted("__matmul__")
    noted("addmm_")
    torch.set_float32_matmul_precision("high")
    yield found
    torch.set_float32_matmul_precision("highest")


def search(_):
    vectors = np.eye(4, dtype=np.float32)
    Exact(in_memory(vectors), 4)(vectors, 2)


def guided_loss(_):
    links = random_links(0)
    values = torch.randn(1, len(links.content_ids), 8).requires_grad_()
    texts, guide = Embeddings(values, (1,)), torch.randn(len(links.content_ids), 4)
    pairing = Negatives(rules=[MarginPos()])(links, guide=Guide(guide[links.query], guide[links.docs]))
    chosen = (Weighted(SubModel(1, 4), 1.0), Weighted(SubModel(1, 8), 1.0))
    Objective(InfoNCE())(texts.rows(links.query), texts.rows(links.docs), pairing, chosen)


def doctor(model):
    encoder = load_encoder(model)
    run = SimpleNamespace(encoder=encoder, plan=SimpleNamespace(sub_models=(SubModel(1, 8),)))
    probed = probes.probe_findings(run, ["a cat", "a dog runs"], None)
    next(probed)
    torch.eye(2) @ torch.eye(2)  # between two findings
    probed.close()


@pytest.mark.parametrize("region", [search, guided_loss, doctor])
def test_products_are_exact(region, seen, tiny_bert):
    region(tiny_bert)
    assert seen == {"ieee"}
    assert precisions() == {"tf32"}, "as before afterwards"


def test_what_was_allowed_is_so_again_after_an_error():
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(KeyError), exact_float32():
            raise KeyError
        assert precisions() == {"tf32"}
    finally:
        torch.set_float32_matmul_precision("highest")
