"""Vectors of a guide model as targets of every sub-model.

Letters: R texts, D width of the model, d of a prefix, G width of the guide.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.settings import not_negative, one_of
from embedtrain.types import Chosen, Embeddings, InputError

Distance = Literal["cosine", "mse"]
NO_GUIDE = "EmbeddingDistill needs a guide model: name one by guide=..., or choose another distill"


class EmbeddingDistill(nn.Module):
    """Every sub-model near the guide's vectors of the same texts, weighted as the plan weights it.

    weight · Σ_m c_m · mean over texts of dist( n(e_{:d}) W_{:, :d}ᵀ, g )

    One projection W (G, D) serves all prefixes by its first columns, as MRL-E's head does (Kusupati et al.
    2022, 2205.13147). Without a projection the target is the guide's prefix of d dims, normalised again after
    the cut, so that a student equal to its guide has loss 0 at every dim. All texts weigh the same. Source:
    EmbedDistill (Kim et al. 2023, 2301.12005) as sentence-transformers' EmbedDistillLoss, which fails
    inside MatryoshkaLoss with a projection and does not normalise cut targets.
    """

    needs = frozenset({"guide"})

    def __init__(
        self,
        distance: Distance = "cosine",
        weight: float = 1.0,
        projection: bool = True,
        normalize: bool = True,
        *,
        width: int,
        guide_width: int | None,
        seed: int = 0,
    ) -> None:
        """Set the distance and make the projection.

        Args:
            distance: "cosine" is 1 - cosine; "mse" the mean squared difference of coordinates.
            weight: strength.
            projection: learn a matrix between the widths; without it the prefixes are compared as they are.
            normalize: bring prefixes to unit length first, as the guide's vectors are. Without it "mse" also
                trains the norm the model emits.
            width: D.
            guide_width: G, None without a guide.
            seed: of the projection's first value.

        Raises:
            InputError: on a negative weight, another word, no guide, or widths that need a projection.
        """
        super().__init__()
        if guide_width is None:
            raise InputError(NO_GUIDE)
        one_of("distance", distance, ("cosine", "mse"))
        self.distance = distance
        self.weight = not_negative("weight", weight)
        self.normalize = normalize
        self.projection: nn.Parameter | None = None
        if projection:
            generator = torch.Generator().manual_seed(seed)
            start = torch.empty(guide_width, width)
            self.projection = nn.Parameter(nn.init.orthogonal_(start, generator=generator))
        elif width != guide_width:
            raise InputError(
                f"projection=false compares vectors of one width, the model's is {width} and the guide's "
                f"{guide_width}: set projection=true"
            )

    def forward(self, texts: Embeddings, chosen: Chosen, guide: Tensor | None = None) -> Tensor:
        """The weighted sum over the sub-models, a scalar >= 0.

        Arguments are those of `Distill`.

        Raises:
            InputError: if there is no guide.
        """
        if guide is None:
            raise InputError(NO_GUIDE)
        total = texts.values.new_zeros(())
        for sub, share in chosen:
            student = texts.at(sub) if self.normalize else texts.raw(sub)  # (R, d)
            target = guide.detach().to(student.dtype)  # (R, G)
            if self.projection is None:
                target = F.normalize(target[:, : sub.dim], dim=-1)  # (R, d)
            else:
                student = student @ self.projection[:, : sub.dim].T.to(student.dtype)  # (R, G)
            total = total + share * self._apart(student, target)
        return self.weight * total

    def _apart(self, student: Tensor, target: Tensor) -> Tensor:
        if self.distance == "mse":
            return F.mse_loss(student, target)
        return (1 - F.cosine_similarity(student, target, dim=-1)).mean()
