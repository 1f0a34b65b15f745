"""How often a training step waits for its device, and how many kernels it asks for, counted without a GPU."""

import json
import random
import re

import pytest
import torch
import torch.distributed as dist
from every_loss import LOSSES, TERMS, part
from fake_device import FAKE, fake_device
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.callbacks import Callback
from random_batches import random_links
from small_runs import compose, write_rows
from torch.testing._internal.distributed.fake_pg import FakeStore

from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.run.run import Run
from embedtrain.training.callbacks import saving
from embedtrain.training.module import TrainModule
from embedtrain.types import Embeddings, SubModel, Weighted

WORDS = (
    "cat dog bird fish man woman child plays runs eats sleeps sings guitar piano ball tree river sun".split()
)
PAIRS = [[layer, dim] for layer in (1, 4) for dim in (8, 16, 32)]
GUIDE = ["negatives=gist", "guide=model"]
CASES = {
    "plain": [],
    "guide": GUIDE,
    "queue": ["queue=documents"],
    "gradcache": ["gradcache=chunks", "gradcache.max_tokens=64"],
    "all": [*GUIDE, "queue=documents", "gradcache=chunks", "gradcache.max_tokens=64"],
    "decoder": ["pooling=mean"],
    "packed": ["backbone.packing=true"],
    "packed decoder": ["pooling=mean", "backbone.packing=true"],
}
MOST_WAITS, MOST_KERNELS = 1, 60  # of a step; of a chunk of similarities, six sub-models
MOST_OF_A_LOSS = 2  # and what the rules say of hard negatives
MOST_OF_RANKS = 3  # what each holds, their links, and with the losses whether one was asked to stop


def some(draw, count):
    return " ".join(draw.choices(WORDS, k=count))


@pytest.fixture(scope="module")
def folder_of_rows(tmp_path_factory):
    """Pairs of many lengths, the same with scores, and with negatives that a teacher judged."""
    draw, pairs = random.Random(0), []
    for number in range(60):
        length = 4 + number % 17
        pairs.append({"query": some(draw, draw.randint(2, 6)), "positive": some(draw, length)})
    scored = [pair | {"score": number % 7 / 6} for number, pair in enumerate(pairs)]
    negatives = [
        pair | {"negatives": [some(draw, 5), some(draw, 9)], "teacher_scores": [0.9, 0.2, 0.4]}
        for pair in pairs
    ]
    folder = tmp_path_factory.mktemp("rows")
    for name, lines in {"rows": pairs, "one": scored, "negatives": negatives}.items():
        write_rows(folder / f"{name}.jsonl", lines)
    return folder


@pytest.fixture(scope="module")
def rows(folder_of_rows):
    return folder_of_rows / "rows.jsonl"


class Marks(Callback):
    """The counts as each batch begins."""

    def __init__(self, counts):
        self.counts, self.found = counts, []

    def on_train_batch_start(self, *_):
        self.found.append(self.counts.copy())


@pytest.fixture
def step_of(rows, tiny_bert, tiny_llama, tmp_path, monkeypatch):
    """The counts of one step in the middle of a run by Lightning, on the device."""
    monkeypatch.setattr(saving, "READ_SECONDS", 1e9)
    monkeypatch.setattr(CPUAccelerator, "setup_device", lambda *_: None)

    def run(case, *words):
        model = tiny_llama if "decoder" in case else tiny_bert
        every = [*CASES[case], *words]
        chosen = [f"guide.path={model}"] if "guide=model" in every else []
        made = Run(compose([
            "name=x", f"output_root={tmp_path}", f"backbone.path={model}", f"data.train={rows}",
            "trainer=cpu",
            "trainer.precision=32-true", "trainer.max_steps=4", "data.batch_size=12", f"plan.pairs={PAIRS}",
            "trainer.log_every_n_steps=100", "overwrite=true", *every, *chosen,
        ]))  # fmt: skip
        monkeypatch.setattr(type(made.stage.trainer.strategy), "root_device", FAKE)
        try:
            with fake_device() as counts:
                marks = Marks(counts)
                made.stage.trainer.callbacks.insert(0, marks)
                made.fit()
        finally:
            made.folder.release()
        return marks.found[3].since(marks.found[2])

    return run


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_once(case, step_of):
    counts = step_of(case)
    assert counts.kernels, "the step ran on the device"
    assert sum(counts.waits.values()) <= MOST_WAITS, counts.waits


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_of_any_loss_waits_twice_at_most(name, step_of, folder_of_rows):
    needs = Objective(part("loss", name, width=32)).needs
    file = "one" if "scores" in needs else "negatives"
    words = [f"loss={name}", f"data.train=[{{source: {folder_of_rows}/{file}.jsonl, task: one}}]"]
    words += GUIDE if "guide_rule" in needs else []
    words += (
        ["loss.terms=" + re.sub(r'"(\w+)":', r"\1:", json.dumps(TERMS))] if name == "weighted_sum" else []
    )
    counts = step_of("plain", *words)
    assert counts.kernels, "the step ran on the device"
    assert sum(counts.waits.values()) <= MOST_OF_A_LOSS, counts.waits


@pytest.fixture
def two_ranks():
    """Lets this process be the first of two; the other has the same rows."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("case", ["plain", "all"])
def test_a_step_of_several_ranks_waits_thrice(case, step_of, two_ranks):
    counts = step_of(case)
    assert sum(counts.waits.values()) <= MOST_OF_RANKS, counts.waits


@pytest.fixture
def shared_weights(two_ranks, monkeypatch):
    """Lets a run ask the other rank as often as FSDP must; its weights stay whole."""
    configure = TrainModule.configure_model

    def configured(module):
        module._device_mesh = {"data_parallel": None}
        configure(module)

    monkeypatch.setattr("embedtrain.training.module.shard", lambda *_: None)
    monkeypatch.setattr(TrainModule, "configure_model", configured)


@pytest.mark.parametrize(("case", "most"), [("plain", 1), ("gradcache", 2)])
def test_ranks_that_share_weights_agree_once_a_step(case, most, step_of, shared_weights):
    tokens = "gradcache.max_tokens" if case == "gradcache" else "backbone.max_tokens"
    few, many = step_of(case, f"{tokens}=96"), step_of(case, f"{tokens}=32")
    assert sum(many.kernels.values()) > 1.3 * sum(few.kernels.values()), "there are more micro-batches"
    assert few.waits == many.waits
    assert sum(few.waits.values()) <= MOST_OF_RANKS + most, few.waits


@pytest.mark.parametrize("case", ["plain", "all", "packed"])
def test_no_micro_batch_waits(case, step_of):
    few, many = step_of(case), step_of(case, "backbone.max_tokens=32")
    assert sum(many.kernels.values()) > 1.5 * sum(few.kernels.values()), "there are more micro-batches"
    assert many.waits == few.waits


def evaluated(budget, device=None):
    """The value and the gradient of 96 queries, on a device; the counts there."""
    links = random_links(0, queries=96, tasks=1)
    values = torch.randn(2, len(links.content_ids), 32, generator=torch.Generator().manual_seed(0))
    chosen = tuple(Weighted(SubModel(1 + layer // 4, dim), 1.0 + dim / 8) for layer, dim in PAIRS)
    objective = Objective(InfoNCE(), similarity_budget=budget)
    with fake_device() as counts:
        placed = (values if device is None else values.to(device)).requires_grad_()
        texts, before = Embeddings(placed, (1, 2)), counts.copy()
        pairing = Negatives()(links, device=placed.device)
        found = objective(texts.rows(links.query), texts.rows(links.docs), pairing, chosen)
        found.total.backward()
        spent = counts.since(before)
        parts = [part.cpu() for _, part in found.parts]
        report = [part.cpu() for part in found.rows[:3]]
        return found.total.detach().cpu(), placed.grad.cpu(), parts, report, spent


def test_a_chunk_of_similarities_takes_few_kernels():
    columns = len(random_links(0, queries=96, tasks=1).docs)
    (*_, one), (*_, six) = evaluated(2**30, FAKE), evaluated(16 * columns * len(PAIRS), FAKE)
    more = (sum(six.kernels.values()) - sum(one.kernels.values())) / 5
    assert 20 < more <= MOST_KERNELS, six.kernels - one.kernels
    assert one.waits == six.waits


@pytest.mark.parametrize("budget", [1, 20_000, None])
def test_a_device_computes_what_a_cpu_does(budget):
    *found, _ = evaluated(budget, FAKE)
    *expected, _ = evaluated(budget)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
