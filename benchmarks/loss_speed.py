"""What six prefixes cost beside one: InfoNCE at 2,048 queries x 8,192 documents x 768, forward and backward.

    python benchmarks/loss_speed.py [--queries 2048] [--docs 8192] [--repeats 5] [--out FILE.json]

In one run, on the same random vectors: plain torch cross-entropy at full width (the yardstick), our InfoNCE
at full width, our six prefixes from one pass, and sentence-transformers' MatryoshkaLoss over
MultipleNegativesRankingLoss. Rounds are interleaved and the fastest of each is compared, since a shared
machine only ever slows a round down. Ratios are printed; nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer import losses
from torch import Tensor, nn

from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.types import Embeddings, Links, SubModel, Weighted

WIDTH = 768
DIMS = (32, 64, 128, 256, 512, 768)


class Given(nn.Module):
    """A sentence-transformers model whose embeddings are those of the features: it costs nothing."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features as they are."""
        return dict(features)

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return WIDTH


def plain(query: Tensor, docs: Tensor) -> Tensor:
    """One full-width InfoNCE as anyone writes it."""
    scores = F.normalize(query, dim=1) @ F.normalize(docs, dim=1).T
    return F.cross_entropy(scores * 20, torch.arange(len(query)))


def distinct(queries: int, docs: int) -> Links:
    """Distinct texts of one task; the first documents are the positives."""
    rows, columns = torch.arange(queries), torch.arange(docs)
    texts = torch.arange(queries + docs)
    first = texts[queries : 2 * queries]
    return Links(
        content_ids=texts,
        query=rows,
        docs=columns + queries,
        owner=columns % queries,
        positive=rows,
        known=first,
        known_owner=rows,
        task=torch.zeros_like(rows),
        rows=rows,
        scores=None,
    )


def ours(dims: tuple[int, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    """Our objective over the prefixes `dims`."""
    objective = Objective(InfoNCE())
    chosen = tuple(Weighted(SubModel(1, dim), 1.0) for dim in dims)

    def loss(query: Tensor, docs: Tensor) -> Tensor:
        pairing = Negatives()(distinct(len(query), len(docs)))
        total: Tensor = objective(
            Embeddings(query[None], (1,)), Embeddings(docs[None], (1,)), pairing, chosen
        ).total
        return total

    return loss


def peer(query: Tensor, docs: Tensor) -> Tensor:
    """sentence-transformers: documents as one column of positives and three of negatives."""
    model = Given()
    loss = losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), list(DIMS))
    columns = [query, *docs.split(len(query))]
    total: Tensor = loss([{"sentence_embedding": column} for column in columns], None)
    return total


def main() -> None:
    """Time, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--queries", type=int, default=2048)
    parser.add_argument("--docs", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", help="run one way alone, for its peak memory")
    given = parser.parse_args()
    torch.manual_seed(0)
    query = torch.randn(given.queries, WIDTH, requires_grad=True)
    docs = torch.randn(given.docs, WIDTH, requires_grad=True)
    ways = {
        "plain InfoNCE, 768": plain,
        "embedtrain, 768": ours((WIDTH,)),
        "embedtrain, 6 prefixes": ours(DIMS),
        "sentence-transformers MatryoshkaLoss, 6 prefixes": peer,
    }
    ways = {name: way for name, way in ways.items() if given.only is None or given.only in name}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.repeats):
        for name, way in ways.items():
            begun, spent = time.perf_counter(), time.process_time()
            torch.autograd.grad(way(query, docs), [query, docs])
            wall[name].append(time.perf_counter() - begun)
            cpu[name].append(time.process_time() - spent)
    first = next(iter(ways))
    print(f"{given.queries} x {given.docs} x {WIDTH}, forward and backward, fastest of {given.repeats}")
    rows = []
    for name in ways:
        row = {
            "way": name,
            "seconds": min(wall[name]),
            "cpu_seconds": min(cpu[name]),
            "ratio": min(wall[name]) / min(wall[first]),
            "cpu_ratio": min(cpu[name]) / min(cpu[first]),
        }
        rows.append(row)
        print(
            f"{name:50s} {row['seconds']:7.2f} s   x {row['ratio']:.2f}   "
            f"{row['cpu_seconds']:7.2f} CPU-s   x {row['cpu_ratio']:.2f}"
        )
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if given.out:
        given.out.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
