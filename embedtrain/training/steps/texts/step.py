"""A `Step` of a method that trains on texts alone: sums of this rank to means over all ranks.

Letters: P losses, M texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from embedtrain.data.loader import Collate
from embedtrain.data.module import DataModule
from embedtrain.model.encoder import Encoder
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.objective.plan import Plan
from embedtrain.ranks import world_size
from embedtrain.training.distributed import sum_over_ranks
from embedtrain.training.steps.protocol import Context, Report, Validated
from embedtrain.transfers import moved
from embedtrain.types import Chosen, InputError, SubModel


class Loss(NamedTuple):
    """One loss of a sub-model, not yet divided by what it is of."""

    name: str  # in the metrics
    sub: SubModel
    factor: float  # in the loss of the sub-model
    total: Tensor  # scalar: the sum over what this rank predicts
    of: Tensor | int  # how many these are


class Right(NamedTuple):
    """How well a sub-model predicts."""

    right: Tensor  # scalar
    of: Tensor | int


class Method(Protocol):
    """What is predicted of texts, and from what."""

    @property
    def metric(self) -> str:
        """What `right` counts, for val/<metric>."""
        ...

    @property
    def module(self) -> nn.Module:
        """Heads and decoders, which train along and are never shipped."""
        ...

    @property
    def collate(self) -> Collate:
        """Rows to a batch, which has `rows` and `inputs`."""
        ...

    @property
    def widest(self) -> int:
        """Most coordinates of a sub-model that can be predicted from."""
        ...

    @property
    def dim(self) -> int | None:
        """The dim of every sub-model where those of the plan play no part."""
        ...

    def losses(self, batch: Any, encoder: Encoder, subs: Sequence[SubModel], share: float) -> list[Loss]:  # noqa: ANN401
        """The losses of each sub-model; `share` is how much of the run is over, in 0..1."""
        ...

    def right(self, batch: Any, encoder: Encoder, subs: Sequence[SubModel]) -> Mapping[SubModel, Right]:  # noqa: ANN401
        """What each sub-model predicts rightly."""
        ...


class TextStep:
    """A method as a `Step`: sub-models weigh as the plan says, their weights scaled to the sum of 1.

    Each mean is over what all ranks predict, so that any number of ranks has the loss of one.

    Args:
        method: what is predicted.
        step: name of the option, for messages.
    """

    def __init__(self, method: Method, step: str) -> None:
        self.method, self.module = method, method.module
        self.collate = self.validation_collate = method.collate
        self._step, self._steps = step, 1
        self._right: dict[SubModel, Tensor] = {}  # right ones, of how many
        self._rows = 0

    def check(self, data: DataModule, plan: Plan, encoder: Encoder, ranks: int) -> None:
        """Take the length of the run.

        Raises:
            InputError: for a sub-model whose prefix is wider than the states.
        """
        self._steps = max(1, data.optimiser_steps)
        most = max(sub.dim for sub in plan.sub_models)
        if self.method.dim is None and most > self.method.widest:
            raise InputError(
                f"step={self._step} predicts from at most {self.method.widest} coordinates, the width of the "
                f"states, and the plan has {most}: use a pooling as wide as the states (pooling=mean), or "
                "smaller dims"
            )

    def to(self, device: torch.device) -> None:
        """All of it is in `module`."""

    def loss(self, batch: Any, context: Context) -> Tensor:  # noqa: ANN401
        """The weighted mean over all that is predicted on all ranks."""
        shares = self._shares(context.chosen)
        done = min(context.step / self._steps, 1.0)
        losses = self.method.losses(batch, cast(Encoder, context.encoder), tuple(shares), done)
        totals = torch.stack([one.total for one in losses])  # (P,)
        numbers = [[float(one.of) for one in losses], [one.factor * shares[one.sub] for one in losses]]
        known = moved(torch.tensor(numbers, dtype=totals.dtype), totals.device)  # (2, P)
        counts, weights = sum_over_ranks(known[0]).clamp(min=1), known[1]
        means = sum_over_ranks(totals) / counts
        context.report(_report(losses, means, weights, batch.rows))
        return (weights * totals / counts).sum() * world_size()  # DDP divides by the number of ranks

    def validate(self, batch: Any, encoder: nn.Module, sub_models: Sequence[SubModel]) -> None:  # noqa: ANN401
        """Count what each sub-model predicts rightly."""
        subs = list(dict.fromkeys(map(self._cell, sub_models)))
        for sub, (right, of) in self.method.right(batch, cast(Encoder, encoder), subs).items():
            new = torch.stack([right.double().cpu(), torch.tensor(float(of), dtype=torch.float64)])
            self._right[sub] = self._right.get(sub, torch.zeros_like(new)) + new
        self._rows += len(batch.rows)

    def validated(self, sub_models: Sequence[SubModel], device: torch.device) -> Validated:
        """The share that each sub-model predicts rightly, over all ranks."""
        found, self._right = self._right, {}
        rows, self._rows = self._rows, 0
        every = torch.stack([*found.values(), torch.tensor([rows, 0], dtype=torch.float64)])
        *counts, (of_all, _) = sum_over_ranks(every.to(device)).tolist()
        scores = {sub: right / max(of, 1) for sub, (right, of) in zip(found, counts, strict=True)}
        return Validated(self.method.metric, scores, int(of_all))

    def _cell(self, sub: SubModel) -> SubModel:
        return sub if self.method.dim is None else SubModel(sub.layer, self.method.dim)

    def _shares(self, chosen: Chosen) -> dict[SubModel, float]:
        """Sub-models and their weights, which sum to 1."""
        weights: dict[SubModel, float] = {}
        for sub, weight in chosen:
            weights[self._cell(sub)] = weights.get(self._cell(sub), 0.0) + weight
        whole = sum(weights.values())
        return {sub: weight / whole for sub, weight in weights.items()}

    def facts(self) -> dict[str, float]:
        """Nothing is added up over steps."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing: every draw is a function of the step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def texts_of(encoder: Encoder, step: str) -> TextTokenizer:
    """What reads the texts of an encoder. Raises InputError for one of another modality."""
    if not isinstance(encoder.process, TextTokenizer):
        raise InputError(f"step={step} trains on texts, and this encoder reads something else")
    return encoder.process


def _report(losses: Sequence[Loss], means: Tensor, weights: Tensor, rows: Tensor) -> Report:
    means = means.detach()
    parts: dict[SubModel, Tensor] = {}
    facts: dict[str, Tensor] = {}
    for one, mean, weight in zip(losses, means, weights, strict=True):
        parts[one.sub] = parts.get(one.sub, 0.0) + one.factor * mean
        facts[one.name] = facts.get(one.name, 0.0) + weight * mean
    several = facts if len(facts) > 1 else {}
    return Report((weights * means).sum(), rows, list(parts.items()), several)
