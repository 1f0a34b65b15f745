"""The bag of words of a text as what its vector is to predict (Ma et al. 2024, 2401.11248).

Each distinct token of a text weighs 1 / (tokens of the text), so that repeated ones count once, as in the
code of DupMAE (Xiao et al. 2023, 2305.02564). Special tokens are in no bag.

Letters: M texts, T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bag_of(ids: Tensor, ordinary: Tensor, vocabulary: int) -> Tensor:
    """(M, V) weights of the tokens of each text; a row of zeros for one without any.

    Args:
        ids: (M, T) tokens.
        ordinary: (M, T) bool, no special ones nor padding.
        vocabulary: V.
    """
    one = 1.0 / ordinary.sum(1, keepdim=True).clamp(min=1)  # (M, 1)
    bag = ids.new_zeros(len(ids), vocabulary + 1, dtype=torch.float32)
    bag.scatter_(1, ids.masked_fill(~ordinary, vocabulary), one.expand_as(ids).float())
    return bag[:, :vocabulary]


def bag_loss(logits: Tensor, bag: Tensor) -> Tensor:
    """-sum_v w_v log softmax(logits)_v, summed over the texts: a scalar.

    Args:
        logits: (M, V).
        bag: (M, V) weights.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return -(bag.to(wide.dtype) * wide.log_softmax(-1)).sum()


def bag_recall(logits: Tensor, bag: Tensor) -> Tensor:
    """How many distinct tokens of the bags are among as many best guesses: a scalar."""
    sizes = (bag > 0).sum(1)  # (M,)
    most = int(sizes.max()) if len(sizes) else 0
    best = logits.topk(most, dim=1).indices  # (M, most)
    within = torch.arange(most, device=sizes.device) < sizes[:, None]
    return ((bag > 0).gather(1, best) & within).sum()
