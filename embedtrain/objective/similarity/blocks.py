"""Losses made of rows of similarities: every sub-model from one pass over the queries, in chunks.

The gradient is worked out chunk by chunk while the value is, so memory grows with b x C + (B + C) x D and
never with B x C, nothing is computed twice, and who is a row's negative is decided once for all sub-models.

Letters: B queries, b those of a chunk, C documents, D width, L layers, K prefixes of one layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from embedtrain.objective.similarity.row_pass import Pass
from embedtrain.objective.similarity.row_terms import RowLoss, RowReport, RowTerm, Step
from embedtrain.types import Embeddings, Pairing, SubModel


class RowValue(NamedTuple):
    """All row losses of a step."""

    total: Tensor  # scalar, differentiable
    parts: dict[SubModel, Tensor]  # detached loss of each sub-model before its weight
    distillation: Tensor  # detached scalar
    report: RowReport


def evaluate(query: Embeddings, docs: Embeddings, step: Step) -> RowValue:
    """Σ over sub-models and terms of weight · Σ_i rows_i · loss_i, and the distillation of each on top.

    Args:
        query: (L, B, D) un-normalised, of every layer among the weights.
        docs: (L, C, D) likewise.
        step: what is computed.
    """
    pass_ = Pass(step, query.layers)
    parameters = step.parameters
    total: Tensor = _Fused.apply(pass_, query.values, docs.values, *parameters)  # type: ignore[no-untyped-call]
    return RowValue(total, pass_.parts, pass_.distillation, pass_.report())


def contrast(
    loss: RowLoss,
    query: Tensor,
    docs: Tensor,
    pairing: Pairing,
    factor: Tensor | None = None,
    *,
    budget: int | None = None,
) -> Tensor:
    """Σ_i factor_i · loss_i of one row loss over the queries, at one sub-model, a scalar.

    Args:
        loss: the loss.
        query: (B, d) raw prefixes.
        docs: (C, d) raw prefixes.
        pairing: positives and candidates.
        factor: (B,) of each query; 1/B when None, which gives the mean.
        budget: similarities of one block held at a time; None fits the device.
    """
    sub = SubModel(1, query.shape[1])
    each = query.new_full((len(query),), 1 / len(query)) if factor is None else factor
    step = Step(pairing, {sub: 1.0}, [RowTerm(loss, 1.0, each)], None, budget)
    return evaluate(Embeddings(query[None], (1,)), Embeddings(docs[None], (1,)), step).total


class _Fused(torch.autograd.Function):
    """The value and, made along with it, the gradient; backward only multiplies."""

    @staticmethod
    def forward(ctx: Any, pass_: Pass, query: Tensor, docs: Tensor, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        total, gradients = pass_.run(query.detach(), docs.detach(), parameters, any(ctx.needs_input_grad))
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return (None, *(gradient * upstream[0] for gradient in ctx.saved_tensors))
