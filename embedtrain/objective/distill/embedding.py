"""Vectors of a guide model as targets of every sub-model.

Letters: R texts, D width of the model, d of a prefix, G width of the guide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.objective.settings import not_negative, one_of
from embedtrain.types import Chosen, Embeddings, InputError, SubModel

Distance = Literal["cosine", "mse"]
NO_GUIDE = "EmbeddingDistill needs a guide model: name one by guide=..., or choose another distill"


class EmbeddingDistill(nn.Module):
    """Every sub-model near the guide's vectors of the same texts, weighted as the plan weights it.

    weight · Σ_m c_m · cells_m · mean over texts of dist( n(e_{:d}) W_{:, :d}ᵀ, g )

    One projection W (G, D) serves all prefixes by its first columns, as MRL-E's head does (Kusupati et al.
    2022, 2205.13147). Without a projection the target is the guide's prefix of d dims, normalised again after
    the cut, so that a student equal to its guide has loss 0 at every dim; the guide may be wider. All texts
    weigh the same. Source: EmbedDistill (Kim et al. 2023, 2301.12005) as sentence-transformers'
    EmbedDistillLoss, which fails inside MatryoshkaLoss with a projection and does not normalise cut targets.
    """

    needs = frozenset({"guide"})

    def __init__(
        self,
        distance: Distance = "cosine",
        weight: float = 1.0,
        projection: bool = True,
        normalize: bool = True,
        cells: Mapping[str, float] | None = None,
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
            cells: further factors by the name of the sub-model, as {"L3_D96": 2.0}; 1 where none is given.
            width: D.
            guide_width: G, None without a guide.
            seed: of the projection's first value.

        Raises:
            InputError: on a negative weight, another word, a name of no sub-model, no guide, or a guide too
                narrow for its prefixes.
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
        elif width > guide_width:
            raise InputError(
                f"projection=false compares prefixes, and the guide has only {guide_width} dims for the "
                f"model's {width}: set projection=true"
            )
        self.cells = {
            _cell_of(name): not_negative(f"cells.{name}", value) for name, value in (cells or {}).items()
        }

    def forward(self, texts: Embeddings, chosen: Chosen, guide: Tensor | None = None) -> Tensor:
        """The weighted sum over the sub-models, a scalar >= 0.

        Arguments are those of `Distill`.

        Raises:
            InputError: if there is no guide.
        """
        if guide is None:
            raise InputError(NO_GUIDE)
        total = texts.values.new_zeros(())
        for sub, given in chosen:
            share = given * self.cells.get(sub, 1.0)
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


def _cell_of(name: str) -> SubModel:
    """L3_D96 as a sub-model. Raises InputError for another form."""
    found = re.fullmatch(r"L(\d{1,6})_D(\d{1,6})", str(name))
    if found is None:
        raise InputError(f"cells: {str(name)[:40]!r} names no sub-model: write one as L3_D96")
    return SubModel(int(found[1]), int(found[2]))
