"""Files written for stores, run; and the exact search that they are compared with."""

import importlib.util

import torch

from embedtrain.evaluation.sweeping.funnel import cascade, shortlist
from embedtrain.model.folder.export import load_encoder
from embedtrain.types import SubModel

K, ROLES = 5, ("document", "query")


def loaded(path):
    """A Python file that was written for a store, as a module."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ours(folder, texts, cells, keep):
    """The best K documents of each query by our own exact search, and their cosines."""
    encoder, stages = load_encoder(folder), []
    for layer, dim in cells:
        some = [encoder.encode(part, (layer,), role) for part, role in zip(texts, ROLES, strict=True)]
        documents, queries = (one.at(SubModel(layer, dim)) for one in some)
        stages.append((queries, documents))
    every = len(texts[0])
    numbers, cosines = cascade(shortlist(*stages[0], every), keep or [every], stages[1:] or stages)
    return numbers[:, :K].tolist(), cosines[:, :K]


def check(found, expected):
    """Compare [(document, cosine), ...] of each query."""
    assert [[number for number, _ in row] for row in found] == expected[0]
    values = torch.tensor([[cosine for _, cosine in row] for row in found])
    torch.testing.assert_close(values, expected[1], rtol=0, atol=1e-5)
