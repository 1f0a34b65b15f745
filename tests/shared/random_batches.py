"""Small random batches of losses."""

import torch

from embedtrain.types import Embeddings, Links


def random_links(seed: int, queries: int = 7, texts: int = 12, tasks: int = 2) -> Links:
    """Links of a batch full of clashes: few texts, several tasks, ragged negatives."""
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


def random_embeddings(seed: int, layers: int, texts: int, width: int) -> Embeddings:
    """(layers, texts, width) float64 embeddings of layers 1..L that want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(layers, texts, width, generator=generator, dtype=torch.float64)
    return Embeddings(values.requires_grad_(), tuple(range(1, layers + 1)))
