"""Enhanced decoding: every token of a text from its vector and from what the token's place sees.

Letters: M texts, T tokens, H hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embedtrain.model.backbone.backbone import Backbone
from embedtrain.training.steps.texts.decoder import DecoderLayer, Positions
from embedtrain.types import Inputs


class EnhancedDecoder(nn.Module):
    """One layer whose queries are the vector at each place, and whose keys are the vector and the tokens.

    Args:
        backbone: whose embeddings it shares. Where it has no table of positions as wide as its states, the
            decoder has one of its own.
        embedded: whether queries pass the embedding part of the backbone, as in DupMAE; else they are the
            vector plus the position, as in RetroMAE. Without such a table they are the latter.
        longest: most tokens of a text.
        seed: of the first weights.
    """

    def __init__(self, backbone: Backbone, *, embedded: bool, longest: int, seed: int) -> None:
        super().__init__()
        own = backbone.position_states(_one_token(backbone)) is None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layer = DecoderLayer(backbone.model.config)
            self.positions = Positions(longest, backbone.hidden_size) if own else None
        self._embedded = embedded and not own
        self.to(backbone.model.dtype)

    def forward(self, backbone: Backbone, texts: Inputs, vector: Tensor, visible: Tensor) -> Tensor:
        """States (M, T, H) of the places of whole texts.

        Args:
            backbone: gives the embeddings.
            texts: before any token was hidden.
            vector: (M, H).
            visible: (M, T, T) bool.
        """
        tokens = backbone.entering(texts)
        first = texts.mask & (texts.mask.cumsum(1) == 1)  # (M, T)
        memory = torch.where(first[..., None], vector[:, None].to(tokens.dtype), tokens)
        found: Tensor = self.layer(self._queries(backbone, texts, vector), memory, visible)
        return found

    def _queries(self, backbone: Backbone, texts: Inputs, vector: Tensor) -> Tensor:
        if self._embedded:
            return backbone.entering(texts, vector)
        if self.positions is not None:
            places = (texts.mask.cumsum(1) - 1).clamp(min=0)
            own: Tensor = self.positions(places)
            return vector[:, None] + own
        positions = backbone.position_states(texts)
        assert positions is not None
        return vector[:, None] + positions


def _one_token(backbone: Backbone) -> Inputs:
    one = torch.ones(1, 1, dtype=torch.int64, device=backbone.model.device)
    return Inputs(one, one > 0, one[0] * 0)
