"""Run by test_distributed: the loss and gradient of one step on a share of the global batch, as JSON.

python two_ranks.py RANK WORLD RENDEZVOUS_FILE OUT_FILE PLAN DISTILL
"""

import json
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from embedtrain.data.collate import collate
from embedtrain.data.sampler import slice_for_rank
from embedtrain.data.sources import Example
from embedtrain.objective.contrastive import InfoNCE
from embedtrain.objective.distillation import LayerKL, PrefixKL
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.pairing import pair
from embedtrain.objective.plan import Dims, FixedPairs, Full, Grid, Random2d
from embedtrain.objective.scored import CoSENT
from embedtrain.train.distributed import gather_embeddings, gather_links
from embedtrain.types import Embeddings, Tokens, distinct_layers

LAYERS, WIDTH = 3, 8
PLANS = {
    "full": Full(num_layers=LAYERS, width=WIDTH),
    "dims": Dims([2, 8], num_layers=LAYERS, width=WIDTH),
    "fixed_pairs": FixedPairs([[1, 2], [2, 4], [3, 8]], num_layers=LAYERS, width=WIDTH),
    "random2d": Random2d([2, 4, 8], num_layers=LAYERS, width=WIDTH),
    "grid": Grid([1, 3], [4, 8], num_layers=LAYERS, width=WIDTH),
}


def tokenize(texts, role, prompts=None):
    ids = [[1 + ord(letter) % 30 for letter in f"{role[0]}{text}"] for text in texts]
    width = max(map(len, ids))
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    return Tokens(padded, padded > 0, torch.zeros(len(ids), dtype=torch.int64))


class TinyEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(32, WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.double()

    def forward(self, tokens, layers):
        state, states = self.table(tokens.ids), []
        for block in self.blocks:
            state = torch.tanh(block(state))
            mask = tokens.mask[..., None]
            states.append((state * mask).sum(1) / mask.sum(1))
        return Embeddings(torch.stack([states[layer - 1] for layer in layers]), tuple(layers))


class Step(nn.Module):
    def __init__(self, plan, objective):
        super().__init__()
        self.encoder, self.objective, self.plan = TinyEncoder(), objective.double(), plan

    def forward(self, batch):
        chosen = self.plan(0)
        texts = gather_embeddings(self.encoder(batch.texts, distinct_layers(chosen)))
        links = gather_links(batch.links)
        return self.objective(texts.rows(links.query), texts.rows(links.docs), pair(links), chosen).total


def main(rank, world, rendezvous, out, plan, distill):
    scored = distill == "scored"
    examples = [
        Example(
            query=f"question {number}",
            positives=(f"answer {number}", f"other answer {number % 3}")[: 1 if scored else 2],
            negatives=() if scored else tuple(f"wrong {number} {index}" for index in range(number % 3)),
            score=number / 7 if scored else None,
            task="one" if number < 5 else "two",
            where=f"rows:{number}",
        )
        for number in range(8)
    ]
    if world > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{rendezvous}",
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=60),
        )
    loss = CoSENT() if scored else InfoNCE(learn_temperature=True, two_sided=True)
    extra = {"none": None, "scored": None, "prefix": PrefixKL(), "layer": LayerKL()}[distill]
    step = Step(PLANS[plan], Objective(loss, extra))
    # four rows each; the negatives are ragged, so the ranks hold different numbers of texts
    rows = slice_for_rank(list(range(8)), rank, world)
    module = DistributedDataParallel(step) if world > 1 else step
    value = module(collate(examples, rows, tokenize, epoch=1))
    value.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in step.parameters()])
    with open(f"{out}.{rank}", "w") as file:
        json.dump({"loss": value.item(), "gradient": gradient.tolist()}, file)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()  # its threads must not outlive the interpreter


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
