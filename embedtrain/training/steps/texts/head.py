"""From the states of tokens, or a prefix of them, to the tokens of the vocabulary; never shipped.

A head is a transform and a decoder. A prefix is transformed by the leading columns of the transform's matrix
(Zhuang et al. 2024, 2410.13230): the same as transforming the prefix filled up with zeros.

Letters: m states, H hidden width, E width of the token embeddings, V vocabulary.
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


class Head(nn.Module):
    """(m, H) states to (m, V) logits.

    Args:
        transform: (m, H) to (m, E).
        decoder: (m, E) to (m, V).
    """

    def __init__(self, transform: nn.Module, decoder: nn.Linear) -> None:
        super().__init__()
        self.transform, self.decoder = transform, decoder

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.decoder.weight.shape[0]

    def forward(self, states: Tensor) -> Tensor:
        """(m, V) logits."""
        logits: Tensor = self.decoder(self.transform(states))
        return logits


def head_of(encoder: Encoder, seed: int) -> Head:
    """The head that the encoder's folder has, else a new one over its token embeddings.

    Args:
        encoder: whose token embeddings the head shares.
        seed: draws the weights of a new one.
    """
    model = encoder.backbone.model
    table = word_table(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if type(model.config) in MODEL_FOR_MASKED_LM_MAPPING:
            whole, info = _loaded(encoder.origin, model.dtype)
            if all(name.startswith(f"{whole.base_model_prefix}.") for name in info["missing_keys"]):
                return own_head(whole, table)
        return tied_head(encoder.backbone.hidden_size, table).to(model.dtype)


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


def own_head(model: Any, table: nn.Embedding) -> Head:  # noqa: ANN401 - a model class of its own a type
    """The head of a Hugging Face masked-language model.

    Args:
        model: it; its own encoder is dropped.
        table: token embeddings that take the place of those it shares with its decoder.
    """
    decoder = model.get_output_embeddings()
    if model.config.tie_word_embeddings:
        decoder.weight = table.weight
    place = next(name for name, module in model.named_modules() if module is decoder)
    owner, _, name = place.rpartition(".")
    setattr(model.get_submodule(owner), name, nn.Identity())
    return Head(OwnTransform(model), decoder)


class OwnTransform(nn.Module):
    """What a Hugging Face masked-language model does between its encoder and its decoder."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        super().__init__()
        setattr(model, model.base_model_prefix, _Given())
        self.model = model

    def forward(self, states: Tensor) -> Tensor:
        """(m, E)."""
        found: Tensor = self.model(inputs_embeds=states[None]).logits[0]
        return found


class _Given(nn.Module):
    """Stands in an encoder's place and gives back the states that it is given."""

    def forward(self, *_: object, inputs_embeds: Tensor, **__: object) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=inputs_embeds)


def tied_head(width: int, table: nn.Embedding) -> Head:
    """BERT's head with drawn weights, the token embeddings as decoder.

    Args:
        width: H.
        table: the token embeddings, (V, E).
    """
    transform = NewTransform(width, table.embedding_dim)
    decoder = nn.Linear(table.embedding_dim, table.num_embeddings)
    nn.init.zeros_(decoder.bias)
    decoder.weight = table.weight  # one parameter in two places
    return Head(transform, decoder)


class NewTransform(nn.Module):
    """Linear, GELU, LayerNorm: (m, H) to (m, E)."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(width, narrow), nn.LayerNorm(narrow)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: Tensor) -> Tensor:
        """(m, E)."""
        found: Tensor = self.norm(F.gelu(self.dense(states)))
        return found


def prefix(states: Tensor, dim: int, width: int) -> Tensor:
    """The first `dim` coordinates (..., D) filled up with zeros to (..., `width`)."""
    return F.pad(states[..., :dim], (0, width - min(dim, states.shape[-1])))
