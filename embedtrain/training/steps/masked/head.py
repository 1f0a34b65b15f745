"""From the states of hidden tokens to the tokens of the vocabulary; thrown away after training.

Letters: m hidden tokens, H hidden width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING
from transformers.utils import logging

from embedtrain.files.reading import reading
from embedtrain.model.backbone.own_code import word_table
from embedtrain.model.encoder import Encoder


def head_of(encoder: Encoder, seed: int) -> nn.Module:
    """(m, H) states to (m, V) logits: the head that the encoder's folder has, else a new one.

    Args:
        encoder: whose input embeddings the head shares.
        seed: draws the weights of a new one.
    """
    model = encoder.backbone.model
    table = word_table(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if type(model.config) in MODEL_FOR_MASKED_LM_MAPPING:
            whole, info = _loaded(encoder.origin, model.dtype)
            if all(name.startswith(f"{whole.base_model_prefix}.") for name in info["missing_keys"]):
                return OwnHead(whole, table)
        return TiedHead(encoder.backbone.hidden_size, table).to(model.dtype)


def _loaded(folder: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A masked-language model and what transformers says of its weights, without its warnings."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call, unused-ignore]
    try:
        with reading(folder, "Fetch or save the model again"):
            model, info = AutoModelForMaskedLM.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, trust_remote_code=False
            )
        return model, info
    finally:
        logging.set_verbosity(verbosity)


class OwnHead(nn.Module):
    """The head of a Hugging Face masked-language model, which is given states in place of texts.

    Args:
        model: it; its own encoder is dropped.
        table: input embeddings that take the place of those it shares with its decoder.
    """

    def __init__(self, model: Any, table: nn.Embedding) -> None:  # noqa: ANN401 - a model class of its own a type
        super().__init__()
        setattr(model, model.base_model_prefix, _Given())
        if model.config.tie_word_embeddings:
            model.get_output_embeddings().weight = table.weight
        self.model = model

    def forward(self, states: Tensor) -> Tensor:
        """(m, V) logits."""
        logits: Tensor = self.model(inputs_embeds=states[None]).logits[0]
        return logits


class TiedHead(nn.Module):
    """Linear, GELU, LayerNorm, and the input embeddings as decoder: the head of BERT, weights drawn.

    Args:
        width: H.
        table: the input embeddings, (V, H).
    """

    def __init__(self, width: int, table: nn.Embedding) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        self.decoder = nn.Linear(width, table.num_embeddings)
        nn.init.zeros_(self.decoder.bias)
        self.decoder.weight = table.weight  # one parameter in two places

    def forward(self, states: Tensor) -> Tensor:
        """(m, V) logits."""
        logits: Tensor = self.decoder(self.norm(F.gelu(self.dense(states))))
        return logits


class _Given(nn.Module):
    """Stands in an encoder's place and gives back the states that it is given."""

    def forward(self, *_: object, inputs_embeds: Tensor, **__: object) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=inputs_embeds)
