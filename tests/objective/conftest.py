"""Golden values and small random batches for the objective tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast

from embedtrain.types import Embeddings, Links

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def one_thread():
    """Thread start-up costs more than these tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def golden() -> Callable[[str], tuple[dict[str, torch.Tensor], dict]]:
    """Name of a case -> (arrays as tensors, config)."""

    def load(case: str) -> tuple[dict[str, torch.Tensor], dict]:
        with np.load(GOLDEN / f"{case}.npz") as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return tensors, json.loads((GOLDEN / f"{case}.json").read_text())["config"]

    return load


@pytest.fixture
def random_links() -> Callable[..., Links]:
    """Seed -> links of a batch full of clashes: few texts, several tasks, ragged negatives."""

    def build(seed: int, queries: int = 7, texts: int = 12, tasks: int = 2) -> Links:
        generator = torch.Generator().manual_seed(seed)

        def integers(high: int, size: int) -> torch.Tensor:
            return torch.randint(high, (size,), generator=generator)

        ids = torch.tensor([9, 3, 7, 3, 11, 5, 9, 2, 8, 4, 6, 1])[:texts] * 1_000_003 - 5_000_000
        counts = 1 + integers(4, queries)  # one positive and 0..3 negatives
        owner = torch.repeat_interleave(torch.arange(queries), counts)
        docs = integers(texts, len(owner))
        positive = counts.cumsum(0) - counts
        shuffle = torch.randperm(len(owner), generator=generator)
        place = shuffle.argsort()
        docs, owner, positive = docs[shuffle], owner[shuffle], place[positive]
        extra = integers(queries, 5)
        known = torch.cat([ids[docs[positive]], ids[integers(texts, 4)], torch.tensor([123_456_789])])
        return Links(
            content_ids=ids,
            query=integers(texts, queries),
            docs=docs,
            owner=owner,
            positive=positive,
            known=known,
            known_owner=torch.cat([torch.arange(queries), extra]),
            task=integers(tasks, queries),
            rows=torch.arange(queries),
            scores=torch.rand(queries, generator=generator),
        )

    return build


@pytest.fixture
def random_embeddings() -> Callable[..., Embeddings]:
    """(layers, texts, width) -> float64 embeddings of layers 1..L that want a gradient."""

    def build(seed: int, layers: int, texts: int, width: int) -> Embeddings:
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(layers, texts, width, generator=generator, dtype=torch.float64)
        return Embeddings(values.requires_grad_(), tuple(range(1, layers + 1)))

    return build


class VectorTable(nn.Module):
    """A stand-in for a sentence-transformers model whose vector of text i is row i; counts its calls."""

    max_seq_length = 1

    def __init__(self, rows: int, width: int, seed: int) -> None:
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

    def get_embedding_dimension(self) -> int:
        return self.vectors.shape[1]

    def features(self, columns: int) -> list[dict[str, torch.Tensor]]:
        """Token features of the rows as columns of anchors, positives and so on."""
        ids = torch.arange(len(self.vectors)).reshape(columns, -1, 1)
        return [{"input_ids": column, "attention_mask": torch.ones_like(column)} for column in ids]


@pytest.fixture
def vector_tables() -> Callable[[int], tuple[VectorTable, VectorTable]]:
    """Columns of 20 texts -> a student of width 16 and a guide of width 8."""

    def build(columns: int) -> tuple[VectorTable, VectorTable]:
        student, guide = VectorTable(columns * 20, 16, 0), VectorTable(columns * 20, 8, 1)
        with torch.no_grad():  # the guide knows positives, or a filter by it would keep next to nothing
            guide.vectors[20:40] += 2 * guide.vectors[:20]
        return student, guide

    return build
