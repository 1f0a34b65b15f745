"""GradCache: the gradient of a batch that is larger than memory, exactly (Gao et al. 2021, 2101.06983).

A contrastive loss needs all embeddings of the batch at once, its gradient through the encoder does not. So
    1. every chunk of texts is encoded without gradient,
    2. the loss of the whole batch gives the gradient g of the embeddings,
    3. every chunk is encoded again, now with gradient, and Σ embeddings · g is differentiated.
Peak memory is that of one chunk; the price is one more forward pass. Dropout is the same in both passes: each
chunk seeds the generators by its own number, so that no generator state is saved.

How it fits Lightning's automatic optimisation, and DDP. `training_step` differentiates all chunks but the
last by itself and returns the surrogate Σ embeddings · g of the last, which Lightning differentiates as it
would a loss. DDP's reducer looks at gradients only between the end of its forward and the end of its
backward, so the chunks inside `training_step` merely accumulate, and the last one's backward reduces the
sum: one all-reduce per step, whatever the number of chunks, which may differ by rank. Where every rank
computes the loss of the whole batch, a rank's share of g is that loss's gradient for its own texts times
the number of ranks, which DDP's mean undoes.

What the loss itself trains (a temperature, a projection) gets its gradient in 2 and enters the last surrogate
as Σ parameter · gradient, so that it is scaled, reduced and clipped like all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from embedtrain.model.encoder import Agree, Encoder
from embedtrain.model.inputs.micro_batches import lengths_of, micro_batches, with_spans
from embedtrain.settings.checks import at_least_one
from embedtrain.transfers import moved
from embedtrain.types import Embeddings, Inputs

Seed = Callable[[int], int]  # number of a chunk -> seed of its dropout


class GradCache:
    """How a batch is cut into chunks.

    Args:
        max_tokens: rows x padded length of a chunk; texts are sorted by length first. One longer text is a
            chunk of its own.
        mini_batch_size: texts of a chunk in their order instead, whatever their length; None to go by tokens.

    Raises:
        InputError: if one of them is below 1.
    """

    def __init__(self, max_tokens: int = 16_384, mini_batch_size: int | None = None) -> None:
        at_least_one(max_tokens=max_tokens, mini_batch_size=mini_batch_size)
        self.max_tokens, self.mini_batch_size = max_tokens, mini_batch_size

    def chunks(self, tokens: Inputs) -> list[Tensor]:
        """Row numbers of each chunk, on the host; every one of the M texts is in one of them."""
        if self.mini_batch_size is not None:
            return list(torch.split(torch.arange(len(tokens.values)), self.mini_batch_size))
        return [torch.tensor(rows) for rows in micro_batches(lengths_of(tokens), self.max_tokens)]

    def __call__(
        self,
        encoder: nn.Module,
        tokens: Inputs,
        layers: Sequence[int],
        score: Callable[[Embeddings], Tensor],
        *,
        owned: Sequence[nn.Parameter],
        seed: Seed,
        backward: Callable[[Tensor], object],
        agree: Agree | None = None,
        widths: Sequence[int] | None = None,
    ) -> Tensor:
        """A scalar whose backward completes the gradient of `score`; its value is no loss.

        Args:
            encoder: tokens and layers to embeddings. One that trains nothing is run once.
            tokens: the M texts of this rank.
            layers: after which blocks.
            score: embeddings (L, M, D) to the loss. What it keeps of the loss must be detached.
            owned: parameters of the loss that train.
            seed: number of a chunk to the seed of its dropout.
            backward: differentiates the surrogates of all chunks but the last.
            agree: numbers of chunks, and of micro-batches in each, to those of the ranks which have most,
                where ranks must run the encoder equally often; a rank with fewer runs empty ones.
            widths: coordinates of each layer that the loss reads, the leading ones; all when None.
        """
        tokens = with_spans(tokens)
        chunks = [_Chunk(rows) for rows in self.chunks(tokens)]
        if agree is not None:
            chunks = _agreed(chunks, cast(Encoder, encoder), lengths_of(tokens), agree)
        slope = _slopes(score, _first_pass(encoder, tokens, layers, chunks, seed), owned, widths)
        zero = slope.by_layer[0].new_zeros(())
        last = sum(((item * gradient).sum() for item, gradient in slope.owned), zero)
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            return last
        for number, part in enumerate(_encoded(encoder, tokens, layers, chunks, seed)):
            rows = moved(chunks[number].rows, zero.device)
            with torch.autocast(zero.device.type, enabled=False):  # its backward would be cast as well
                surrogate = zero
                for values, gradient in zip(part.values, slope.by_layer, strict=True):
                    surrogate = surrogate + (values[:, : gradient.shape[1]] * gradient[rows]).sum()
                if number + 1 == len(chunks):
                    last = last + surrogate
                else:
                    backward(surrogate)
            del part, surrogate  # before the next chunk is encoded
        return last


class _Chunk(NamedTuple):
    """Texts that are encoded together."""

    rows: Tensor  # (m,) int64 of the host
    agreed: tuple[int, ...] = ()  # the micro-batches that all ranks run of it, where they must agree


def _agreed(chunks: Sequence[_Chunk], encoder: Encoder, lengths: Sequence[int], agree: Agree) -> list[_Chunk]:
    """As many chunks on every rank, of as many micro-batches: asked once a step, for each question waits."""
    empty = _Chunk(torch.empty(0, dtype=torch.int64))
    every = [*chunks, *[empty] * (agree([len(chunks)])[0] - len(chunks))]
    own = [encoder.forwards([lengths[row] for row in chunk.rows.tolist()]) for chunk in every]
    return [_Chunk(chunk.rows, (most,)) for chunk, most in zip(every, agree(own), strict=True)]


class _Slopes(NamedTuple):
    """The gradient of the loss by all that the second pass needs."""

    by_layer: list[Tensor]  # (M, d) by this rank's embeddings, up to the last coordinate of the layer in use
    owned: list[tuple[Tensor, Tensor]]  # parameters of the loss, and the gradient of each


def _first_pass(
    encoder: nn.Module, tokens: Inputs, layers: Sequence[int], chunks: Sequence[_Chunk], seed: Seed
) -> Embeddings:
    """All texts without gradient, in their order: a leaf for the loss to be differentiated by."""
    with torch.no_grad():
        parts = list(_encoded(encoder, tokens, layers, chunks, seed))
        values = torch.cat([part.values for part in parts], dim=1)
        order = torch.cat([chunk.rows for chunk in chunks]).argsort()
        values = values.index_select(1, moved(order, values.device))  # (L, M, D)
    return Embeddings(values.requires_grad_(), parts[0].layers)


def _slopes(
    score: Callable[[Embeddings], Tensor],
    texts: Embeddings,
    owned: Sequence[nn.Parameter],
    widths: Sequence[int] | None,
) -> _Slopes:
    """Everything else of the loss, its graph and the embeddings of other ranks, is gone on return."""
    total = score(texts)
    with torch.autocast(total.device.type, enabled=False):
        gradients = torch.autograd.grad(total, [texts.values, *owned], materialize_grads=True)
    every = [texts.values.shape[-1]] * len(gradients[0]) if widths is None else widths
    # A plan trains few coordinates of a lower layer. Copied: a view would keep all layers alive.
    by_layer = [values[:, :width].clone() for values, width in zip(gradients[0], every, strict=True)]
    return _Slopes(by_layer, list(zip(owned, gradients[1:], strict=True)))


def _encoded(
    encoder: nn.Module, tokens: Inputs, layers: Sequence[int], chunks: Sequence[_Chunk], seed: Seed
) -> Iterator[Embeddings]:
    for number, chunk in enumerate(chunks):
        torch.manual_seed(seed(number))
        yield encoder(tokens.rows(chunk.rows), layers, *chunk.agreed)
