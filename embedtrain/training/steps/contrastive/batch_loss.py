"""Embedded texts of this rank to the loss of the step: gather, guide, queue, pair, objective.

Letters: B queries, N documents, M distinct texts of a rank, D width, L layers, G width of a guide,
Q documents without gradient (of other ranks, of past steps).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from embedtrain.objective.matryoshka import Objective, ObjectiveValue
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.objective.similarity.pairing import Queued, hard_documents
from embedtrain.ranks import rank, world_size
from embedtrain.training.distributed import (
    gather_embeddings,
    gather_links,
    gather_rows,
    mean_over_ranks,
    shares,
)
from embedtrain.training.steps.contrastive.queue import Documents, Queue, join
from embedtrain.transfers import moved
from embedtrain.types import (
    Batch,
    Chosen,
    Embeddings,
    Guide,
    InputError,
    Inputs,
    Links,
    Pairing,
    SubModel,
)

Gather = Literal["gradient", "values", "none"]


class Pair(Protocol):
    """`Links` to a `Pairing` on a device; documents of `queued` are columns after those of the links."""

    def __call__(
        self, links: Links, *, step: int, guide: Guide | None, queued: Queued | None, device: torch.device
    ) -> Pairing:
        """The pairing of one step; `guide` has vectors of the documents of `queued` too."""
        ...


class GuideModel(Protocol):
    """A model that is never trained and says which texts are alike."""

    width: int  # G

    def embed(self, tokens: Inputs) -> Tensor:
        """Unit vectors (M, G), without gradient."""
        ...

    def to(self, device: torch.device) -> object:
        """Move it to `device`."""
        ...


class BatchLoss:
    """What a step minimises, as a function of the embeddings of this rank's texts.

    Args:
        objective: embeddings to a loss.
        negatives: who may be a negative of whom; `Negatives()` when left out.
        gather: what a rank contrasts its queries with.
            "gradient": every rank computes the loss of the global batch, as a single process would.
            "values": every rank computes the loss of its own queries; documents of other ranks are further
            negatives and take no gradient from it. Less communication; not the single-process gradient.
            "none": every rank knows its own texts alone.
        guide: gives `negatives` and the objective a second opinion; None without one.
        queue: documents of past steps as further negatives; None without them.

    Raises:
        InputError: for an unknown `gather`, or a queue that would differ by rank.
    """

    def __init__(
        self,
        objective: Objective,
        negatives: Pair | None = None,
        *,
        gather: Gather = "gradient",
        guide: GuideModel | None = None,
        queue: Queue | None = None,
    ) -> None:
        if gather not in get_args(Gather):
            raise InputError(f'gather must be "gradient", "values" or "none", got {gather!r}')
        self.objective, self.gather = objective, gather
        self.pair: Pair = Negatives() if negatives is None else negatives
        self.guide, self.queue = guide, queue

    def __call__(
        self, local: Embeddings, batch: Batch, chosen: Chosen, step: int, *, identical: bool = False
    ) -> tuple[ObjectiveValue, Links]:
        """The loss, and the links of the queries it is over; the documents enter the queue afterwards.

        Args:
            local: (L, M, D) of `batch.inputs`, at the layers of `chosen`.
            batch: what this rank trains on.
            chosen: sub-models and weights of the step.
            step: optimiser step.
            identical: as `gather_embeddings`.
        """
        seen = _gathered(self.gather, local, batch.links, self._guided(batch), identical=identical)
        texts, links, guided = seen.texts, seen.links, seen.guide
        query, docs = texts.rows(links.query), texts.rows(links.docs)
        more = self._further(seen.others, local.values.device)
        if more is not None:
            docs = docs._replace(values=torch.cat([docs.values, more.values.to(docs.values)], dim=1))
        pairing = self.pair(
            links,
            step=step,
            guide=None if guided is None else _guide(guided, links, more),
            queued=None if more is None else Queued(more.content_ids, more.task, more.hard),
            device=local.values.device,
        )
        value = self.objective(query, docs, pairing, chosen)
        if self.queue is not None:
            self.queue.push(seen.documents)
        return value, links

    def _guided(self, batch: Batch) -> Tensor | None:
        """(M, G) unit vectors of the guide, each distinct text once."""
        if self.guide is None:
            return None
        if batch.guide is None:
            raise InputError("there is a guide and the batches hold no tokens for it")
        with torch.no_grad():
            return self.guide.embed(batch.guide)

    def _further(self, others: Documents | None, device: torch.device) -> Documents | None:
        held = None if self.queue is None else self.queue.documents(device)
        given = [part for part in (others, held) if part is not None and len(part.content_ids)]
        return given[0] if len(given) == 1 else join(*given) if given else None


class _Gathered(NamedTuple):
    """What a rank contrasts."""

    texts: Embeddings  # (L, M', D) with gradient
    links: Links  # of those texts
    guide: Tensor | None  # (M', G)
    others: Documents | None  # of other ranks, without gradient
    documents: Documents  # all documents of all ranks in rank order, those of "none" of this rank


def _gathered(
    gather: Gather, local: Embeddings, links: Links, guide: Tensor | None, *, identical: bool
) -> _Gathered:
    if gather == "none" or world_size() == 1:
        return _Gathered(local, links, guide, None, _documents(local, links, guide))
    device = local.values.device
    held = shares(links, device)
    all_links = gather_links(links, held, device=device)
    if gather == "gradient":
        texts = gather_embeddings(local, held.texts, identical=identical)
        guided = None if guide is None else gather_rows(guide, held.texts)
        return _Gathered(texts, all_links, guided, None, _documents(texts, all_links, guided))
    own = _documents(local, links, guide)
    every = Documents(
        gather_embeddings(Embeddings(own.values, local.layers), held.docs).values,
        all_links.content_ids[all_links.docs],
        all_links.task[all_links.owner],
        hard_documents(all_links),
        None if own.guide is None else gather_rows(own.guide, held.docs),
    )
    theirs = torch.ones_like(every.hard)
    theirs[sum(held.docs[: rank()]) :][: held.docs[rank()]] = False
    return _Gathered(local, with_labels_of_equal_queries(links, all_links), guide, every.rows(theirs), every)


def _documents(texts: Embeddings, links: Links, guide: Tensor | None) -> Documents:
    """The documents of a batch by themselves."""
    return Documents(
        texts.values.detach()[:, moved(links.docs, texts.values.device)],
        links.content_ids[links.docs],
        links.task[links.owner],
        hard_documents(links),
        None if guide is None else guide[moved(links.docs, guide.device)],
    )


def _guide(guided: Tensor, links: Links, more: Documents | None) -> Guide:
    docs = guided[moved(links.docs, guided.device)]
    if more is not None and more.guide is not None:
        docs = torch.cat([docs, more.guide.to(docs)])
    return Guide(guided[moved(links.query, guided.device)], docs)


def with_labels_of_equal_queries(links: Links, all_links: Links) -> Links:
    """`links` with the labelled positives that queries of equal text and task have on other ranks."""
    own, all_ = (torch.stack([part.content_ids[part.query], part.task]) for part in (links, all_links))
    kinds = torch.unique(torch.cat([own, all_], dim=1), dim=1, return_inverse=True)[1]
    count = own.shape[1]
    query = torch.full((len(kinds),), -1, device=kinds.device)  # a query of this rank for each kind
    query[kinds[:count]] = torch.arange(count, device=kinds.device)
    owner = query[kinds[count:]][all_links.known_owner]
    return links._replace(
        known=torch.cat([links.known, all_links.known[owner >= 0]]),
        known_owner=torch.cat([links.known_owner, owner[owner >= 0]]),
    )


def averaged(
    value: ObjectiveValue, gather: Gather
) -> tuple[Tensor, list[tuple[SubModel, Tensor]], Tensor | None]:
    """Total, parts and distillation, detached; where ranks have losses of their own, the mean over ranks."""
    scalars = [value.total, *(part for _, part in value.parts)]
    scalars += [] if value.distillation is None else [value.distillation]
    if gather == "gradient":
        means = [scalar.detach() for scalar in scalars]
    else:
        means = list(mean_over_ranks(torch.stack([scalar.detach() for scalar in scalars])))
    parts = [(sub, mean) for (sub, _), mean in zip(value.parts, means[1:], strict=False)]
    return means[0], parts, None if value.distillation is None else means[-1]
