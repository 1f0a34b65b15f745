"""Numbers of a cloud of unit vectors: how even, how many directions, which hubs, how near positives are.

Letters: N texts, D dims, P positive pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.files.measured.health import BINS

Floats = NDArray[np.float64]
NEAREST = 10  # neighbours of which hubness counts


class Geometry(NamedTuple):
    """As the fields of `Health` of these names."""

    uniformity: float
    effective_rank: float
    hubness: float
    cka: float
    mean_cosine: float
    negative: tuple[int, ...]
    alignment: float | None
    positive: tuple[int, ...]


def geometry(unit: NDArray[np.floating], pairs: NDArray[np.int64], reference: Floats) -> Geometry:
    """What the vectors of some texts are like.

    Args:
        unit: (N, D) unit vectors, N at least 2.
        pairs: (P, 2) rows that belong together; may be empty.
        reference: (N, N) `centred` cosines of the sub-model that `cka` compares with.
    """
    vectors = np.asarray(unit, dtype=np.float64)
    cosines = np.clip(vectors @ vectors.T, -1, 1)  # (N, N)
    others = np.triu(np.ones_like(cosines, dtype=bool), 1)
    between = cosines[others]
    others[pairs.min(1), pairs.max(1)] = False
    positives = cosines[pairs[:, 0], pairs[:, 1]]  # (P,)
    return Geometry(
        uniformity=float(np.log(np.mean(np.exp(4 * between - 4)))),  # |x - y|^2 = 2 - 2 cos
        effective_rank=effective_rank(vectors),
        hubness=hubness(cosines),
        cka=cka(centred(cosines), reference),
        mean_cosine=float(between.mean()),
        negative=counts(cosines[others]),
        alignment=float(np.mean(2 - 2 * positives)) if len(pairs) else None,
        positive=counts(positives) if len(pairs) else (),
    )


def effective_rank(vectors: Floats) -> float:
    """Exp of the entropy of the singular values over their sum, 1..min(N, D) (Roy and Vetterli 2007)."""
    small = vectors @ vectors.T if len(vectors) < vectors.shape[1] else vectors.T @ vectors
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(small), 0))
    share = values / values.sum()
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))


def hubness(cosines: Floats) -> float:
    """Skewness of how often a text is among the nearest of others; 0 where all are alike.

    Radovanović, Nanopoulos and Ivanović 2010, with k = 10, or N - 1 where there are fewer others.
    """
    others = cosines.copy()
    np.fill_diagonal(others, -np.inf)
    k = min(NEAREST, len(others) - 1)
    near = np.argpartition(-others, k - 1, axis=1)[:, :k]  # (N, k)
    often = np.bincount(near.ravel(), minlength=len(others)).astype(np.float64)
    spread = often.std()
    return float(np.mean((often - often.mean()) ** 3) / spread**3) if spread > 0 else 0.0


def centred(cosines: Floats) -> Floats:
    """A Gram matrix (N, N) of vectors around their mean."""
    rows = cosines.mean(0)
    result: Floats = cosines - rows[None] - rows[:, None] + rows.mean()
    return result


def cka(one: Floats, other: Floats) -> float:
    """Linear CKA of two centred Gram matrices, 0..1 (Kornblith et al. 2019); 0 where one has no spread."""
    size = np.linalg.norm(one) * np.linalg.norm(other)
    return float(np.sum(one * other) / size) if size > 0 else 0.0


def counts(cosines: Floats) -> tuple[int, ...]:
    """How many are in each of BINS bins of equal width over -1..1."""
    return tuple(np.histogram(cosines, bins=BINS, range=(-1, 1))[0].tolist())
