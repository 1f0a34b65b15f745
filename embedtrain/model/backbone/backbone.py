"""The states of a Hugging Face model after each requested block, in one forward that stops at the deepest.

Letters: M texts, T tokens, H hidden width. A layer is a count of transformer blocks run, 1..num_layers;
layer 0 is the output of the embedding part.

Pre-norm models keep one norm after their last block. It is applied to EVERY state returned here, not to the
last one only, because that is what a physically cut model computes: blocks 1..l, then the norm.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from embedtrain.model.backbone.attention import Attention, attention_of, check_attention, probe
from embedtrain.model.backbone.block_states import entering, kept_states, running
from embedtrain.model.backbone.dropout import with_cheap_dropout
from embedtrain.model.backbone.families import family_of, shorten
from embedtrain.model.backbone.flash import Flash
from embedtrain.model.backbone.loading import load_model
from embedtrain.model.backbone.merging import merged_adapters
from embedtrain.model.backbone.own_code import check_cuts, code_hash, is_own, own_family
from embedtrain.model.backbone.packed_attention import check_packing
from embedtrain.model.backbone.positions import max_positions, placed, position_states
from embedtrain.model.inputs.packing import Packed
from embedtrain.model.modes import evaluating
from embedtrain.types import InputError, Inputs


class Backbone(nn.Module):
    """A Hugging Face encoder or decoder that gives the states after any of its blocks.

    The model's own pooler plays no part in an embedding: it is kept beside the model, frozen, so that it is
    neither trained (DDP would miss its gradients) nor lost from a saved folder. Building one probes that its
    attention is what its config says.

    Attributes:
        attention: causal, or bidirectional.
        code: a hash of the source of a model whose code lies in its folder, else None.
        num_layers: transformer blocks.
        hidden_size: H.
        max_positions: longest text in tokens that the position table allows; None when there is no limit.

    Raises:
        InputError: for a model type that is not in `FAMILIES`, an encoder configured as a decoder, or a
            model whose attention is not what its config says.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        config = model.config
        self._family = own_family(model) if is_own(model) else family_of(config)
        self.code = code_hash(model)
        self.pooler: nn.Module | None = getattr(model, "pooler", None)
        if self.pooler is not None:
            model.register_module("pooler", None)
            self.pooler.requires_grad_(False)
        self.model = with_cheap_dropout(model)
        self.hidden_size: int = config.hidden_size
        self.num_layers = config.num_hidden_layers if self._family.shared else len(self.blocks)
        self.max_positions = max_positions(model, self._family)
        self.attention: Attention = attention_of(config, self._family)
        self._flash = Flash(model)
        self._flash.probe(self.check_attention)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        attn_implementation: str | None = None,
        attention: Attention | None = None,
        trust_remote_code: bool = False,
    ) -> Backbone:
        """The backbone of a local Hugging Face folder or GGUF file.

        Without `attn_implementation` it is sdpa where the model type has it, else eager (MPNet, Gemma 2).
        Without `attention` it is what the folder's config says: causal for a decoder that says nothing.
        Raises as `load_model`, and InputError where code of the folder computes no layers that can be cut.
        """
        backbone = cls(load_model(path, dtype, attn_implementation, attention, trust=trust_remote_code))
        if backbone.code is not None:
            with evaluating(backbone):
                check_cuts(backbone, backbone.model, backbone.attention, attention)
        return backbone

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as of `nn.Module`
        """`forward`, once its attention is chosen and probed: outside of it, for FSDP's hooks do not nest."""
        self._flash.settle()
        return super().__call__(*args, **kwargs)

    def forward(self, tokens: Inputs | Packed, layers: Sequence[int]) -> tuple[Tensor, ...]:
        """States after each of `layers`, in the order asked, each (M, T, H) with the final norm applied.

        Those of packed rows are (R, W, H). Blocks above the deepest requested layer are not run. Not
        thread-safe: the block list is shortened while the model runs.

        Raises:
            ValueError: if `layers` is empty or one lies outside 0..num_layers.
        """
        if not layers or not all(0 <= layer <= self.num_layers for layer in layers):
            raise ValueError(f"layers must be in 0..{self.num_layers} and not empty, got {list(layers)}")
        deepest = max(layers)
        with ExitStack() as stack:
            stack.enter_context(self._flash.precision())
            stack.enter_context(self._cut_to(deepest))
            between = {"between": self._family.between, "shared": self._family.shared}
            inner = stack.enter_context(kept_states(self.blocks, set(layers) - {deepest}, **between))
            last = self._last(tokens, input_ids=tokens.values)
        norm = self.final_norm
        states = {layer: state if norm is None else norm(state) for layer, state in inner.items()}
        states[deepest] = last
        return tuple(states[layer] for layer in layers)

    def _last(self, tokens: Inputs | Packed, **given: Tensor) -> Tensor:
        """The state (M, T, H) after the blocks that the model has now, normed by the model itself."""
        every = {"return_dict": True, **given, **placed(self.model, self._family, tokens)}
        every |= {"use_cache": False} if self._family.decoder else {}
        last: Tensor = self.model(**self._family.accepted(every)).last_hidden_state
        return last

    def entering(self, tokens: Inputs, vector: Tensor | None = None) -> Tensor:
        """The state (M, T, H) that the first block is given; of `vector` (M, E) in each token's place."""
        wide = None if vector is None else vector[:, None].expand(-1, tokens.mask.shape[1], -1)
        given = {"input_ids": tokens.values} if wide is None else {"inputs_embeds": wide}
        with self._flash.precision():
            return entering(self.blocks[0], lambda: self._last(tokens, **given))

    def position_states(self, tokens: Inputs) -> Tensor | None:
        """(M, T, H) what it adds for the places of tokens; None if it has no table of that width."""
        return position_states(self.model, self._family, tokens)

    def decoded(self, tokens: Inputs, blocks: nn.ModuleList, first: Tensor) -> Tensor:
        """The state (M, T, H) after other blocks than its own, which run on its own embeddings.

        Args:
            tokens: M texts.
            blocks: of the kind that it has.
            first: (M, H) stands in the place of the state of each first real token.
        """
        begins = tokens.mask & (tokens.mask.cumsum(1) == 1)  # (M, T)

        def replaced(_block: nn.Module, args: tuple[Tensor, ...]) -> tuple[Any, ...]:
            state = torch.where(begins[..., None], first[:, None].to(args[0].dtype), args[0])
            return (state, *args[1:])

        with self._flash.precision(), self._run_as(blocks):
            handle = blocks[0].register_forward_pre_hook(replaced)
            try:
                return self._last(tokens, input_ids=tokens.values)
            finally:
                handle.remove()

    def cut(self, layer: int) -> PreTrainedModel:
        """A copy of the Hugging Face model with blocks 1..layer only, its config shortened to match.

        Its `last_hidden_state` is our state after block `layer`. The pooler, where there is one, is back, and
        LoRA adapters are merged.

        Raises:
            ValueError: if `layer` is outside 1..num_layers.
        """
        self._check_cut(layer)
        with self._cut_to(layer), self._with_pooler(), merged_adapters(self.model):
            model = copy.deepcopy(self.model)
        shorten(model.config, layer)
        return model

    def save(self, folder: Path, layer: int) -> None:
        """Write what `cut` would give as a Hugging Face folder, without a copy in memory; raises as `cut`."""
        self._check_cut(layer)
        whole = self.model.config
        with self._cut_to(layer), self._with_pooler(), merged_adapters(self.model):
            self.model.config = copy.deepcopy(whole)
            shorten(self.model.config, layer)
            try:
                self.model.save_pretrained(folder)
            finally:
                self.model.config = whole

    def gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute the inside of each block in backward instead of keeping it (same gradients, less memory).

        Raises:
            InputError: if the blocks of this model type cannot be recomputed.
        """
        # Re-entrant checkpointing gives a block no gradient when its input needs none (frozen embeddings).
        recompute = partial(checkpoint, use_reentrant=False)
        for block in self.blocks:
            if not isinstance(block, GradientCheckpointingLayer):
                raise InputError(
                    f"model type {self.model.config.model_type!r} has no gradient checkpointing in "
                    "transformers: switch it off, or lower the encoder's max_tokens to save memory"
                )
            block.gradient_checkpointing = enabled
            vars(block)["_gradient_checkpointing_func"] = recompute

    def check_attention(self) -> None:
        """Raises InputError when the first token sees the last one and should not, or the other way round.

        Six texts of three tokens; random state, modes and gradients are as before afterwards.
        """
        config, layers, pad = self.model.config, self.num_layers, self.model.config.pad_token_id or 0
        with evaluating(self):
            findings = probe(
                self, num_layers=layers, vocabulary=config.vocab_size, pad=pad, device=self.model.device
            )
            name = f"model type {config.model_type!r}"
            check_attention(findings, self.attention, name, str(config._attn_implementation))

    def expect_packing(self) -> None:
        """Raises InputError when packed rows do not give the states that their texts have alone."""
        if self.code is not None:
            raise InputError("a model whose code is its own cannot pack texts: set packing=false")
        self._flash.probe(self._check_packing)

    def _check_packing(self) -> None:
        config, kind = self.model.config, self.model.device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.model.dtype
        name = f"model type {config.model_type!r} with attn_implementation={config._attn_implementation}"
        with evaluating(self):
            check_packing(
                lambda tokens: self(tokens, (self.num_layers,))[0],
                config.vocab_size,
                self.model.device,
                name,
                torch.bfloat16 if self._flash.runs else cast,
            )

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks."""
        return cast(nn.ModuleList, self.model.get_submodule(self._family.blocks))

    @property
    def block_path(self) -> str:
        """Where the blocks are in the Hugging Face model, e.g. `encoder.layer`."""
        return self._family.blocks

    @property
    def varlen(self) -> bool:
        """Whether its attention is told where texts begin, so that a row may hold any number of them."""
        return self._flash.runs

    @property
    def turned(self) -> bool:
        """Whether it is a decoder whose tokens see those after them."""
        return self._family.decoder and self.attention == "bidirectional"

    @property
    def pads_anywhere(self) -> bool:
        """Whether the model itself, without our position ids, may be given padding on either side."""
        return self._family.decoder or self._family.positions == "relative"

    def embedding_parameters(self) -> Iterator[nn.Parameter]:
        """All that is learnt before the first block: token, position and type tables, their norm."""
        inside = (f"{self._family.blocks}.", f"{self._family.final_norm}.")
        return (value for name, value in self.model.named_parameters() if not name.startswith(inside))

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm after the last block of a pre-norm model."""
        path = self._family.final_norm
        return None if path is None else self.model.get_submodule(path)

    def _cut_to(self, layer: int) -> AbstractContextManager[None]:
        """While open, the model has only its first `layer` blocks (the same modules, not copies)."""
        return self._run_as(self.blocks, layer) if self._family.shared else self._run_as(self.blocks[:layer])

    def _run_as(self, blocks: nn.ModuleList, layers: int | None = None) -> AbstractContextManager[None]:
        return running(self.model, self._family, blocks, len(blocks) if layers is None else layers)

    @contextmanager
    def _with_pooler(self) -> Iterator[None]:
        """While open, the model has the pooler it came with."""
        if self.pooler is None:
            yield
            return
        self.model.register_module("pooler", self.pooler)
        try:
            yield
        finally:
            self.model.register_module("pooler", None)

    def _check_cut(self, layer: int) -> None:
        if not 1 <= layer <= self.num_layers:
            raise ValueError(f"layer must be in 1..{self.num_layers}, got {layer}")
