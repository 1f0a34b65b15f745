"""Contrastive training: pairs, negatives, guide, queue, GradCache; validated by ranking or correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from embedtrain.content_ids import content_id
from embedtrain.data.loader import Collate
from embedtrain.data.module import DataModule
from embedtrain.data.stores.memory import some_rows
from embedtrain.model.encoder import Encoder
from embedtrain.objective.matryoshka import ObjectiveValue
from embedtrain.objective.plan import Plan
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.training.distributed import gather_embeddings, gather_links
from embedtrain.training.gradcache import GradCache
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss, Gather, averaged
from embedtrain.training.steps.contrastive.checks import check_run, check_scores, check_validation
from embedtrain.training.steps.contrastive.collate import PairCollate
from embedtrain.training.steps.contrastive.datasets import dataset_facts, dataset_sums
from embedtrain.training.steps.contrastive.validation import Collected, sub_model_scores
from embedtrain.training.steps.protocol import Context, Parts, Report, Validated
from embedtrain.transfers import moved
from embedtrain.types import Batch, Embeddings, Links, Processor, SubModel, distinct_layers


class Contrastive:
    """Contrastive training by the groups of the run that are about pairs; it has no settings of its own."""

    def step(self, parts: Parts) -> ContrastiveStep:
        """The step for an encoder."""
        encoder, guide = parts.encoder, parts.group("guide")
        extra = {
            "num_layers": encoder.num_layers,
            "width": encoder.width,
            "guide_width": None if guide is None else guide.width,
            "seed": parts.seed,
        }
        loss, distill = parts.group("loss", **extra), parts.group("distill", **extra)
        batch_loss = BatchLoss(
            parts.group("objective", loss=loss, distill=distill),
            parts.group("negatives"),
            gather=cast(Gather, parts.gather),
            guide=guide,
            queue=parts.group("queue"),
        )
        guide_process = None if guide is None else guide.process
        return ContrastiveStep(batch_loss, encoder.process, guide_process, gradcache=parts.group("gradcache"))


class ContrastiveStep:
    """A `Step` that embeds the texts of a batch and contrasts its pairs.

    Args:
        batch_loss: `Embeddings` and links to a loss; what its objective owns (a learned temperature) trains.
        process: texts to the inputs of the encoder.
        guide_process: the same for the guide.
        gradcache: encodes the batch in chunks, each twice; None encodes it once and whole.
        datasets: task id -> name of the data set, for metrics of each; `check` finds them in the data.
    """

    def __init__(
        self,
        batch_loss: BatchLoss,
        process: Processor,
        guide_process: Processor | None = None,
        *,
        gradcache: GradCache | None = None,
        datasets: Mapping[int, str] | None = None,
    ) -> None:
        self.batch_loss, self.module, self.gradcache = batch_loss, batch_loss.objective, gradcache
        self.collate: Collate = PairCollate(process, guide_process)  # another makes its pairs of any rows
        self.validation_collate = PairCollate(process)
        self.datasets = datasets or {}
        self._collected = Collected([], [])
        self._sums: dict[str, Tensor] = {}

    def check(self, data: DataModule, plan: Plan, encoder: Encoder, ranks: int) -> None:
        """Refuse what cannot be combined; take the names of the data sets, and who contrasts alone.

        Raises:
            InputError: naming what is missing and what would do.
        """
        if isinstance(self.batch_loss.pair, Negatives):
            self.batch_loss.pair.share(data.in_batch)
        given = isinstance(self.collate, PairCollate)
        check_validation(data.validation_offers)
        check_run(
            self.batch_loss,
            plan,
            width=encoder.width,
            offers=data.offers if given else (),
            tasks=data.tasks if given else dict.fromkeys(data.tasks, False),
            ranks=ranks,
            steps=data.optimiser_steps,
        )
        if "scores" in self.batch_loss.objective.needs:
            for item in data.datasets:
                check_scores(item.store.task, some_rows(item.store))
        self.datasets = {content_id(name): name for name in data.tasks}

    def to(self, device: torch.device) -> None:
        """Bring the guide, which is no part of a trained module, to the device of the batches."""
        if self.batch_loss.guide is not None:
            self.batch_loss.guide.to(device)

    def loss(self, batch: Batch, context: Context) -> Tensor:
        """The loss, or with GradCache the surrogate of the last chunk."""
        layers = distinct_layers(context.chosen)
        if self.gradcache is None:
            return self._loss_of(context.encoder(batch.inputs, layers), batch, context)
        return self.gradcache(
            context.encoder,
            batch.inputs,
            layers,
            lambda texts: self._loss_of(texts, batch, context, identical=True),
            owned=[item for item in self.module.parameters() if item.requires_grad],
            seed=context.seed,
            backward=context.backward,
            agree=context.agree,
            widths=self.module.widths(context.chosen, layers),
        )

    def _loss_of(
        self, texts: Embeddings, batch: Batch, context: Context, *, identical: bool = False
    ) -> Tensor:
        value, links = self.batch_loss(texts, batch, context.chosen, context.step, identical=identical)
        total, parts, distillation = averaged(value, self.batch_loss.gather)
        facts = {} if distillation is None else {"distillation": distillation}
        context.report(Report(total, links.rows, parts, facts))
        self._add_sums(value, links)
        return value.total

    def _add_sums(self, value: ObjectiveValue, links: Links) -> None:
        """Add up what `facts` says of each data set."""
        if value.rows is None or not (len(self.datasets) > 1 or value.rows.removed):
            return
        new = dataset_sums(value.rows, links.task, self.datasets, self.batch_loss.gather)
        old = self._sums
        self._sums = {
            name: sums + moved(old[name], sums.device) if name in old else sums for name, sums in new.items()
        }

    def validate(self, batch: Batch, encoder: nn.Module, sub_models: Sequence[SubModel]) -> None:
        """Keep this rank's embeddings and links; they are scored together at the end."""
        texts = encoder(batch.inputs, tuple(sorted({sub.layer for sub in sub_models})))
        self._collected.texts.append(texts._replace(values=texts.values.cpu()))
        self._collected.links.append(batch.links.to_device(torch.device("cpu")))

    def validated(self, sub_models: Sequence[SubModel], device: torch.device) -> Validated:
        """nDCG@10 over all documents of the held-out rows, or Spearman where they have scores."""
        texts, links = self._collected.joined()
        self._collected = Collected([], [])
        texts = gather_embeddings(texts._replace(values=texts.values.to(device)))
        links = gather_links(links, device=device)
        metric, scores = sub_model_scores(texts, links, sub_models)
        return Validated(metric, scores, len(links.query))

    def facts(self) -> dict[str, float]:
        """Loss, accuracy and removed negatives of each data set."""
        sums, self._sums = self._sums, {}
        return dataset_facts(sums, self.datasets)

    def state_dict(self) -> dict[str, Any]:
        """The queue, and what `facts` has added up."""
        queue = self.batch_loss.queue
        return {"sums": dict(self._sums), "queue": None if queue is None else queue.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._sums = state["sums"]
        if self.batch_loss.queue is not None and state["queue"] is not None:
            self.batch_loss.queue.load_state_dict(state["queue"])
