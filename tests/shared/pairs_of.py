"""Pairings of small batches, and what their queries may be contrasted with."""

import torch

from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.objective.similarity.pairing import QUERY_DOCS


def pair(links, *, step=0, guide=None, queued=None, datasets=(), **settings):
    """The pairing of a batch; `datasets` are `Sharing` by the name of a task."""
    given = {name: sharing._asdict() for name, sharing in dict(datasets).items()}
    return Negatives(**settings, datasets=given)(links, step, guide, queued)


def whole(pairing, names=QUERY_DOCS, student=None):
    """What all queries may be contrasted with at once, in B x C tables."""
    return pairing.candidates.allowed(torch.arange(len(pairing.target)), names, student)
