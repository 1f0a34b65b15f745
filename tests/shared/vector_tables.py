"""Losses of sentence-transformers and of ours on a model that is a table of vectors."""

import torch
from fixed_pairing import fixed
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

from embedtrain.objective import plan
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity import blocks
from embedtrain.types import Embeddings

B, D = 20, 16
DIMS, WEIGHTS = [4, 16, 8], [0.5, 1.0, 2.0]
FEWEST = 1  # budget that makes our chunks as small as they get: 16 of the 20 queries, then 4
MATRYOSHKA = plan.Dims(DIMS, WEIGHTS, num_layers=1, width=D)


class VectorTable(nn.Module):
    """A stand-in for a sentence-transformers model whose vector of text i is row i; counts its calls."""

    max_seq_length, device = 1, torch.device("cpu")

    def __init__(self, rows, width=D, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.vectors = nn.Parameter(torch.randn(rows, width, generator=generator, dtype=torch.float64))
        words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
        self.calls = 0

    def __getitem__(self, place):
        return self

    def forward(self, features):
        self.calls += 1
        return {**features, "sentence_embedding": self.vectors[features["input_ids"][:, 0]]}

    def get_embedding_dimension(self):
        return self.vectors.shape[1]

    def features(self, columns):
        """Token features of the rows as columns of anchors, positives and so on."""
        ids = torch.arange(len(self.vectors)).reshape(columns, -1, 1)
        return [{"input_ids": column, "attention_mask": torch.ones_like(column)} for column in ids]


def vector_tables(columns):
    """A student of width 16 and a guide of width 8 for columns of 20 texts."""
    student, guide = VectorTable(columns * B), VectorTable(columns * B, 8, 1)
    with torch.no_grad():  # the guide knows positives, or a filter by it would keep next to nothing
        guide.vectors[B : 2 * B] += 2 * guide.vectors[:B]
    return student, guide


def pairing_of(columns, count=B, **facts):
    """All that a batch offers: positives, then each column of hard negatives."""
    owner = torch.arange(count).repeat(columns - 1)
    return fixed(torch.arange(count), torch.ones(count, len(owner), dtype=torch.bool), owner=owner, **facts)


def sides(model, count=B):
    """Queries and documents, each a layer, of a table whose first rows are the queries."""
    return Embeddings(model.vectors[None, :count], (1,)), Embeddings(model.vectors[None, count:], (1,))


def theirs(loss, model, columns):
    """Their value and gradient of the table."""
    model.vectors.grad = None
    value = loss(model.features(columns), torch.zeros(B))
    value.backward()
    return value.detach(), model.vectors.grad.clone()


def ours(loss, model, pairing, plan_=None, budget=None):
    """Our value and gradient of the table."""
    query, docs = sides(model)
    if plan_ is None:
        value = blocks.contrast(loss, query.values[0], docs.values[0], pairing, budget=budget)
    else:
        value = Objective(loss, similarity_budget=budget)(query, docs, pairing, plan_).total
    return value.detach(), torch.autograd.grad(value, model.vectors)[0]


def assert_equal(mine, expected):
    assert expected[1].abs().max() > 1e-4
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
