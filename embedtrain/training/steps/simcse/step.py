"""A text is its own positive: encoded twice, it has two vectors by dropout (Gao et al. 2021, 2104.08821).

All that trains on pairs applies: losses, plans, distillation, a guide, GradCache, a queue.
"""

from __future__ import annotations

import logging

from embedtrain.model.backbone.dropout import has_dropout
from embedtrain.training.steps.contrastive.collate import PairCollate
from embedtrain.training.steps.contrastive.step import Contrastive, ContrastiveStep
from embedtrain.training.steps.protocol import Parts
from embedtrain.training.steps.simcse.collate import TwiceCollate
from embedtrain.training.steps.texts.step import texts_of

LOG = logging.getLogger(__name__)


class SimCSE:
    """Unsupervised SimCSE by the groups of the run that are about pairs; it has no settings of its own."""

    def step(self, parts: Parts) -> ContrastiveStep:
        """The step for an encoder. Raises InputError if it reads no texts."""
        process = texts_of(parts.encoder, "simcse")
        if not has_dropout(parts.encoder.backbone.model):
            LOG.warning(
                "step=simcse: this backbone has no dropout, so both vectors of a text are equal and only its "
                "distance to other texts is trained"
            )
        made = Contrastive().step(parts)
        guide = made.collate.guide_process if isinstance(made.collate, PairCollate) else None
        made.collate = TwiceCollate(process, guide, parts.seed)
        return made
