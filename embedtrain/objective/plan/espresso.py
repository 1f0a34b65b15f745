"""All layers at one compressed width, the last also in full: Espresso Sentence Embeddings."""

from __future__ import annotations

import math

from embedtrain.objective.plan.sizes import check_dim, full_model
from embedtrain.types import Chosen, InputError, SubModel, Weighted


class Espresso:
    """ESE (Li et al. 2024, 2402.14776 v2): every step trains every layer at K dims, weighted by depth.

    With L layers of width D: (L, D) and (L, K) weigh 1, and layer l < L at K dims weighs
    1 / (1 + ln l) / (L - 1). Its distillation is `espresso.Espresso` of the same size.
    """

    def __init__(
        self, compress_dim: int = 128, layer_offset: int = 1, *, num_layers: int, width: int
    ) -> None:
        """Choose the compressed width.

        Args:
            compress_dim: K, below the width.
            layer_offset: 1 is the paper's form. 0 is that of the authors' code: its loop begins at the
                embedding output, gives block l the weight of block l + 1 and never trains block L - 1; for
                comparison alone, since the embedding output is no cut that can be exported.
            num_layers: blocks of the model, L.
            width: embedding width of the model, D.

        Raises:
            InputError: if K is not below the width or the offset is neither 0 nor 1.
        """
        full = full_model(num_layers, width)
        if check_dim("compress_dim", compress_dim, full) == width:
            raise InputError(f"compress_dim must be below the width {width}, got {compress_dim}")
        if layer_offset not in (0, 1):
            raise InputError(f"layer_offset must be 0 (authors' code) or 1 (paper), got {layer_offset}")
        self._chosen: Chosen = (
            *(
                Weighted(
                    SubModel(place + layer_offset, compress_dim),
                    1 / (1 + math.log(1 + place)) / (num_layers - 1),
                )
                for place in range(num_layers - 1)
            ),
            Weighted(SubModel(num_layers, compress_dim), 1.0),
            Weighted(full, 1.0),
        )
        self.sub_models = tuple(item.sub for item in self._chosen if item.sub.layer > 0)

    def __call__(self, step: int) -> Chosen:
        """Every layer, ascending, the full model last."""
        return self._chosen
