"""The loss of any weights on a few rows, for methods of merging that ask one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from embedtrain.data.stores.fingerprint import fingerprint
from embedtrain.model.encoder import Encoder
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.matryoshka import Objective
from embedtrain.settings.tools import MergeSettings
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.drawn import drawn_rows, pair_batches
from embedtrain.types import Batch, Embeddings, InputError, SubModel, Weighted, distinct_layers


class RowProbe:
    """The mean loss over sub-models of batches of rows, every source as often as another.

    Args:
        encoder: takes the weights; it is never changed.
        settings: of the command; `probe` is given.
        trained: the sub-models whose losses count, all alike.

    Raises:
        InputError: for rows that cannot be read or are no pairs, or a loss that needs more than pairs.
    """

    def __init__(self, encoder: Encoder, settings: MergeSettings, trained: Sequence[SubModel]) -> None:
        whole = (SubModel(encoder.num_layers, encoder.width),)
        self.encoder, self.chosen = encoder.eval(), tuple(Weighted(sub, 1.0) for sub in trained or whole)
        size = {"num_layers": encoder.num_layers, "width": encoder.width, "seed": settings.seed}
        objective = Objective(settings.loss.build(**size), reduction="mean")
        if objective.needs:
            needed = ", ".join(sorted(objective.needs))
            raise InputError(f"loss needs {needed}, which a probe of pairs lacks: use loss=infonce")
        self._pairs = BatchLoss(objective, gather="none")
        self._scored = BatchLoss(Objective(CoSENT(), reduction="mean"), gather="none")
        sources = settings.probe if isinstance(settings.probe, list) else [settings.probe]
        most = max(2, settings.probe_rows // len(sources))
        drawn = [drawn_rows(source, most, settings.seed, "probe") for source in sources]
        self.identity = fingerprint([row for rows in drawn for row in rows])
        self._batches = _in_turn([pair_batches(rows, encoder, settings.probe_batch_size) for rows in drawn])

    @torch.no_grad()
    def loss(self, weights: Mapping[str, Tensor]) -> float:
        """The mean over all batches."""
        losses = [float(self.batch_loss(weights, number)) for number in range(len(self._batches))]
        return sum(losses) / len(losses)

    def batch_loss(self, weights: Mapping[str, Tensor], number: int) -> Tensor:
        """The loss of a batch, with gradient to the weights."""
        batch, device = self._batches[number % len(self._batches)], self.encoder.device
        there = {key: tensor.to(device) for key, tensor in weights.items()}
        inputs = batch.inputs.to_device(device)
        texts: Embeddings = functional_call(self.encoder, there, (inputs, distinct_layers(self.chosen)))
        of = self._pairs if batch.links.scores is None else self._scored
        return of(texts, batch, self.chosen, 0)[0].total


def _in_turn(sources: Sequence[Sequence[Batch]]) -> list[Batch]:
    """As many batches of each source as the largest has, one of each in turn."""
    most = max(map(len, sources))
    return [batches[number % len(batches)] for number in range(most) for batches in sources]
