"""Run by test_text_steps: loss and gradient of every step on texts, on this rank's share of batches."""

from contextlib import nullcontext

import torch
from processes import joined
from stepped import FakeTrainer, Stepped
from torch.nn.parallel import DistributedDataParallel

from embedtrain.data.order.draw import pick
from embedtrain.data.order.sampler import slice_for_rank
from embedtrain.data.read.sources import Example
from embedtrain.model.folder.export import load_encoder
from embedtrain.objective.plan import FixedPairs, Full
from embedtrain.settings.component import Component
from embedtrain.settings.options import option
from embedtrain.settings.stages import OF_TEXTS
from embedtrain.training.optim import AdamW
from embedtrain.training.steps.protocol import Parts

PAIRS = [[2, 8], [2, 16], [4, 32]]
PLANS = {
    "full": Full(num_layers=4, width=32),
    "pairs": FixedPairs(PAIRS, [1, 2, 1], num_layers=4, width=32),
}
ROWS = 4  # of a batch


def module_of(folder, name, plan, rank):
    """A training module of a step, in float64 and without dropout; its pooling trains along where it can."""
    encoder = load_encoder(folder, pooling="gated_mean", dtype=torch.float64, max_length=24)
    torch.nn.init.normal_(encoder.pooling.queries, generator=torch.Generator().manual_seed(2))
    made = Component.of(option("step", name), "step").build()
    step = made.step(Parts(encoder, 3, "gradient", lambda *_, **__: None))
    module = Stepped(encoder, step, PLANS[plan], AdamW(), total_steps=9)
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        for field in ("dropout_prob", "attention_dropout"):
            if isinstance(getattr(part, field, None), float):
                setattr(part, field, 0.0)
    module.double().trainer = FakeTrainer(rank)
    return module


def batch_of(module, texts, rank, world, number):
    """This rank's share of a global batch."""
    rows = slice_for_rank(range(number * ROWS, (number + 1) * ROWS), rank, world)
    every = [Example(text, (), (), None, "t", f"rows:{n}") for n, text in enumerate(texts)]
    return module.step.collate([pick(every[row], row) for row in rows], number)


def gradient_of(module, texts, rank, world):
    """Mean loss and gradient of two accumulated batches."""
    model = DistributedDataParallel(module) if world > 1 else module
    losses = []
    module.trainer.accumulate_grad_batches = 2
    module.zero_grad()
    for number in range(2):
        waiting = model.no_sync() if number == 0 and model is not module else nullcontext()
        with waiting:
            loss = model(batch_of(module, texts, rank, world, number), number)
            (loss / 2).backward()
        losses.append(float(module._noted["train/loss"]))
    parameters = [(name, item) for name, item in module.named_parameters() if item.requires_grad]
    found = {name: torch.zeros_like(item) if item.grad is None else item.grad for name, item in parameters}
    return sum(losses) / 2, found


def main(rank, world, folder, texts):
    """(step, plan) -> (loss, gradient by parameter)."""
    found = {}
    with joined() if world > 1 else nullcontext():
        for name in OF_TEXTS:
            for plan in PLANS:
                module = module_of(folder, name, plan, rank)
                found[name, plan] = gradient_of(module, texts, rank, world)
    return found
