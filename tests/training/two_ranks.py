"""Run by conftest: loss and gradient of every case on this rank's share of the same global batches."""

import itertools
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from every_loss import DISTILLS, LOSSES, parts
from pairwise import pairwise
from processes import joined
from stepped import FakeTrainer, Stepped
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from embedtrain.content_ids import content_id
from embedtrain.data.order.draw import pick
from embedtrain.data.order.sampler import slice_for_rank
from embedtrain.data.read.sources import Example
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.plan import Dims, FixedPairs, Full, Grid, Random2d
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.rules import MarginPos
from embedtrain.settings.commands import TrainerSettings
from embedtrain.training.gradcache import GradCache
from embedtrain.training.module import TrainModule
from embedtrain.training.optim import AdamW
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.collate import collate
from embedtrain.training.steps.contrastive.queue import Queue
from embedtrain.training.steps.contrastive.step import ContrastiveStep
from embedtrain.training.trainer import make_trainer
from embedtrain.types import Embeddings, InputError, Inputs

LAYERS, WIDTH, GUIDE_WIDTH, QUERIES = 3, 8, 6, 4
PLANS = {
    "full": Full(num_layers=LAYERS, width=WIDTH),
    "dims": Dims([2, 8], num_layers=LAYERS, width=WIDTH),
    "fixed_pairs": FixedPairs([[1, 2], [2, 4], [3, 8]], num_layers=LAYERS, width=WIDTH),
    "random2d": Random2d([2, 4, 8], num_layers=LAYERS, width=WIDTH),
    "grid": Grid([1, 3], [4, 8], num_layers=LAYERS, width=WIDTH),
}
RULES = {"none": (), "guide": (MarginPos(-0.05, by="guide"),), "margin": (MarginPos(0.0, by="student"),)}
CHUNKS = (None, 1, 3)


class Case(NamedTuple):
    loss: str  # option of conf/loss, or "infonce + " an option of conf/distill
    plan: str
    rule: str
    chunk: int | None  # texts of a GradCache chunk
    accumulate: int
    gather: str = "gradient"
    queue: int = 0  # documents kept from the first batch for the second


def every_case():
    """Every option of conf/loss and conf/distill with every plan, rule, chunk and accumulation."""
    for loss, plan, rule, chunk, accumulate in itertools.product(LOSSES, PLANS, RULES, CHUNKS, (1, 2)):
        if accumulate == 1 or chunk != 1:
            yield Case(loss, plan, rule, chunk, accumulate)
    for distill, plan, chunk in itertools.product(DISTILLS, PLANS, CHUNKS):
        yield Case(f"infonce + {distill}", plan, "none", chunk, 1)


def few_cases():
    """Every pair of values of `every_case`, what that is compared with, InfoNCE with all plans and rules."""
    chosen = [*pairwise(every_case())]
    chosen += [Case("infonce", plan, rule, None, 1) for plan in PLANS for rule in RULES]
    chosen += [Case("infonce", "fixed_pairs", "none", None, 2)]
    return list(dict.fromkeys([case._replace(chunk=None) for case in chosen] + chosen))


def shared_cases():
    """Documents of a queue, and the ways to gather."""
    for plan, rule, chunk in itertools.product(("full", "fixed_pairs"), RULES, (None, 3)):
        yield Case("infonce_symmetric", plan, rule, chunk, 1, queue=9)
        yield Case("infonce_symmetric", plan, rule, chunk, 1, gather="values", queue=9)
    for gather, chunk, accumulate in itertools.product(("values", "none"), (None, 3), (1, 2)):
        yield Case("infonce_symmetric", "fixed_pairs", "guide", chunk, accumulate, gather=gather)
        yield Case("infonce_symmetric", "fixed_pairs", "guide", chunk, accumulate)


CASES = {"pairs": few_cases, "product": every_case}


def process(texts, role, prompts=None):
    ids = [[1 + ord(letter) % 30 for letter in f"{role[0]}{text}"] for text in texts]
    width = max(map(len, ids))
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    return Inputs(padded, padded > 0, torch.zeros(len(ids), dtype=torch.int64))


class TinyEncoder(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(32, WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.dropout = dropout
        self.double()

    def forward(self, tokens, layers):
        state, states = self.table(tokens.values), []
        for block in self.blocks:
            state = F.dropout(torch.tanh(block(state)), self.dropout, self.training)
            mask = tokens.mask[..., None]
            states.append((state * mask).sum(1) / mask.sum(1))
        return Embeddings(torch.stack([states[layer - 1] for layer in layers]), tuple(layers))


class TinyGuide:
    """Unit vectors of the letters of a text."""

    width = GUIDE_WIDTH

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.table = torch.randn(32, GUIDE_WIDTH, generator=generator, dtype=torch.float64)

    def embed(self, tokens):
        return F.normalize((self.table[tokens.values] * tokens.mask[..., None]).sum(1), dim=-1)

    def to(self, device):
        return self


def examples():
    """Rows with everything a loss may need; ragged, so that ranks hold different numbers of texts."""
    return [
        Example(
            query=f"question {number % 3}",
            positives=(f"answer {number}", f"other answer {number % 3}"),
            negatives=tuple(f"wrong {number} {index}" for index in range(1 + number % 2)),
            score=None,
            task="one" if number % QUERIES < 3 else "two",
            where=f"rows:{number}",
        )
        for number in range(2 * QUERIES)
    ]


def batch_of(rank, world, number=0):
    """This rank's share of the global batch of a step."""
    rows = slice_for_rank(range(number * QUERIES, (number + 1) * QUERIES), rank, world)
    every = examples()
    batch = collate([pick(every[row], row, epoch=1) for row in rows], process)
    links = batch.links
    teacher = (links.content_ids[links.docs] % 97).double() / 97
    scores = (links.rows * 37 % 16).double() / 16
    return batch._replace(links=links._replace(scores=scores, teacher=teacher), guide=batch.inputs)


def objective_of(name):
    extra = {"width": WIDTH, "num_layers": LAYERS, "guide_width": GUIDE_WIDTH, "seed": 0}
    return Objective(*parts(name, **extra)).double()


class Runner:
    """Steps of all cases with one objective; DDP is set up once."""

    def __init__(self, name, rank, world):
        step = ContrastiveStep(BatchLoss(objective_of(name)), process)
        self.trainer = FakeTrainer(rank)
        self.module = Stepped(TinyEncoder(), step, PLANS["full"], AdamW(), total_steps=9)
        self.module.trainer = self.trainer
        self.model = DistributedDataParallel(self.module) if world > 1 else self.module
        self.batches = [batch_of(rank, world, number) for number in range(2)]

    def run(self, case):
        """Loss and gradient of one optimiser step, in float64."""
        module = self.module
        queue = Queue(case.queue) if case.queue else None
        rules = Negatives(rules=RULES[case.rule])
        loss = BatchLoss(module.owned, rules, gather=case.gather, guide=TinyGuide(), queue=queue)
        cache = None if case.chunk is None else GradCache(mini_batch_size=case.chunk)
        module.step = ContrastiveStep(loss, process, gradcache=cache)
        module.plan = PLANS[case.plan]
        self.trainer.accumulate_grad_batches = case.accumulate
        losses, last = [], case.accumulate - 1
        module.zero_grad()
        if queue is not None:  # a step before, whose documents are queued
            self._backward(0, case)
            module.zero_grad()
        numbers = range(case.accumulate) if queue is None else [1]
        for place, number in enumerate(numbers):
            accumulating = place < last and self.model is not module
            with self.model.no_sync() if accumulating else nullcontext():
                losses.append(self._backward(number, case))
        gradient = [
            item.grad if item.grad is not None else torch.zeros_like(item) for item in module.parameters()
        ]
        return sum(losses) / case.accumulate, torch.cat([item.flatten() for item in gradient])

    def _backward(self, number, case):
        (self.model(self.batches[number], number) / case.accumulate).backward()
        return float(self.module._noted["train/loss"])


def results(rank, world, which):
    """Case -> (loss, gradient), or the error of one that is refused."""
    found, runners = {}, {}
    for case in sorted({*CASES[which](), *shared_cases()}, key=str):
        if case.loss not in runners:
            runners = {case.loss: Runner(case.loss, rank, world)}
        try:
            found[tuple(case)] = runners[case.loss].run(case)
        except InputError as error:
            found[tuple(case)] = str(error)
            runners = {}
    return found


def reductions(rank, world):
    """How often gradients travel in one optimiser step: chunk and accumulation -> buckets sent."""
    sent = []

    def counted(_, bucket):
        sent.append(bucket)
        return allreduce_hook(None, bucket)

    runner, found = Runner("infonce", rank, world), {}
    runner.model.register_comm_hook(None, counted)
    for chunk, accumulate in ((None, 1), (1, 1), (1, 2), (3, 2)):
        sent.clear()
        runner.run(Case("infonce", "full", "none", chunk, accumulate))
        found[chunk, accumulate] = len(sent)
    return found


class Fit(NamedTuple):
    """Settings of a whole run under Lightning's Trainer, which no split may change."""

    chunk: int | None
    gather: str = "gradient"


FITS = (Fit(None), Fit(3), Fit(3, "values"))


def fit(fit_case, rank, world, folder, change=None):
    """Weights, metrics and queue after two optimiser steps of two batches each.

    The gradient is clipped, the temperature learned, the queue on. `change` is given the trainer.
    """
    objective = Objective(InfoNCE(learn_temperature=True, blocks=["query_docs", "doc_queries"])).double()
    rules = Negatives(rules=RULES["guide"])
    loss = BatchLoss(objective, rules, gather=fit_case.gather, guide=TinyGuide(), queue=Queue(7))
    cache = None if fit_case.chunk is None else GradCache(mini_batch_size=fit_case.chunk)
    names = {content_id(name): name for name in ("one", "two")}
    module = TrainModule(
        TinyEncoder(),
        ContrastiveStep(loss, process, gradcache=cache, datasets=names),
        PLANS["fixed_pairs"],
        AdamW(lr=0.01),
        total_steps=2,
    )
    settings = TrainerSettings(
        accelerator="cpu",
        devices=world,
        precision="64-true",
        accumulate_grad_batches=2,
        gradient_clip_val=0.1,
        log_every_n_steps=1,
    )
    trainer = make_trainer(settings, folder=Path(folder))
    if change is not None:
        change(trainer)
    batches = [batch_of(rank, world, number) for number in (0, 1, 1, 0)]
    trainer.fit(module, DataLoader(batches, batch_size=None))
    weights = {name: value.detach().clone() for name, value in module.state_dict().items()}
    return weights, tuple(loss.queue.documents(torch.device("cpu")))


def main(rank, world, which, folder):
    """All results of the cases `which`, the reductions on two ranks, and every fit with its metrics."""
    torch.manual_seed = torch.default_generator.manual_seed  # the other writes down the stack for each device
    with joined() if world > 1 else nullcontext():
        found = results(rank, world, which)
        sent = reductions(rank, world) if world > 1 else None
        fits = {tuple(case): fit(case, rank, world, folder / f"{world}.{n}") for n, case in enumerate(FITS)}
        return found, sent, fits
