"""The methods of study_2d.py: how each trains a model, ours and sentence-transformers'.

A method is a function of (setting, learning rate, seed, precision) to an encoder and what its training took.
All have the same rows, steps, batch, warm-up, decay and clipping.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from in_process import BACKBONE, Cost, Row, fit  # first: it sets threads up before torch is imported

# isort: split
import pytorch_lightning as pl

import embedtrain
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.pooling import GatedMean
from embedtrain.model.rotation.starts import Linear, MakesRotation, rotated_layers
from embedtrain.objective.distill.kl import Distill, LayerKL, PrefixKL
from embedtrain.objective.distill.neighbours import NeighbourKL
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.plan import Dims, FixedPairs, Full, Grid, Plan, Random2d
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.types import SubModel

MAX_LENGTH = 128
RATES = (2e-4, 4e-4, 8e-4)  # at 5e-5 and 1e-4 every method that was tried on MiniLM had a lower mean


class Model(NamedTuple):
    """What is trained: a backbone, the sizes that it is cut to, and the grid that is looked at."""

    name: str
    path: str
    sizes: Sequence[SubModel]
    dims: Sequence[int]
    rates: tuple[int | None, float] = (None, 1.0)  # how many of a method's are tried, or all; times what

    @property
    def layers(self) -> list[int]:
        """The layers of the grid, those of the sizes."""
        return sorted({size.layer for size in self.sizes})

    @property
    def grid(self) -> list[SubModel]:
        """Every layer with every dim."""
        return [SubModel(layer, dim) for layer in self.layers for dim in self.dims]

    @property
    def cells(self) -> list[SubModel]:
        """What is scored: sizes and grid."""
        return sorted({*self.sizes, *self.grid})


def sizes(*pairs: tuple[int, int]) -> tuple[SubModel, ...]:
    """Sub-models of (layer, dim)."""
    return tuple(SubModel(*pair) for pair in pairs)


MINILM = Model(
    "minilm",
    BACKBONE,
    sizes((1, 32), (2, 64), (3, 96), (4, 192), (5, 256), (6, 384)),
    (32, 64, 128, 256, 384),
)
MPNET = Model(
    "mpnet_base",
    "models/all-mpnet-base-v2",  # `make mpnet` writes it
    sizes((2, 32), (4, 64), (6, 128), (8, 256), (10, 512), (12, 768)),
    (32, 64, 128, 256, 512, 768),
    rates=(1, 0.5),
)
MODELS = {model.name: model for model in (MINILM, MPNET)}


def compared_in(setting: str, model: Model) -> str:
    """The precision in which the methods of a setting are compared."""
    return "32-true" if (setting, model) == ("stsb", MINILM) else "bf16-mixed"


class Setting(NamedTuple):
    """What is trained on."""

    name: str
    rows: Sequence[Row]
    scored: bool  # CoSENT of scores, or InfoNCE of pairs
    batch_size: int
    steps: int


class Asked(NamedTuple):
    """One training."""

    setting: Setting
    lr: float
    seed: int
    precision: str
    model: Model = MINILM


class Clock:
    """What this process took since it was made."""

    def __init__(self) -> None:
        self._begun, self._worked = time.perf_counter(), time.process_time()

    def cost(self, steps: int) -> Cost:
        """The cost of some steps, until now."""
        return Cost(steps, time.perf_counter() - self._begun, time.process_time() - self._worked)


Trains = Callable[[Asked], tuple[Encoder, Cost]]


class Method(NamedTuple):
    """How a method trains, and the rates that are tried of MiniLM: of scored pairs, and of pairs if other."""

    train: Trains
    rates: Sequence[float] = RATES
    rates_of_pairs: Sequence[float] = ()
    seeded: bool = True  # whether a seed changes anything
    size: SubModel | None = None  # the only one that it is for
    tested: bool = True  # whether it is compared on test sets, or on development data alone

    def tried(self, asked: Setting, model: Model) -> list[float]:
        """The rates that are tried in a setting, of a model."""
        rates = self.rates if asked.scored else self.rates_of_pairs or self.rates
        count, share = model.rates
        return [rate * share for rate in rates[:count]]


def untouched(asked: Asked) -> tuple[Encoder, Cost]:
    """The backbone as it comes."""
    return load_encoder(asked.model.path, max_length=MAX_LENGTH), Cost(0, 0.0, 0.0)


def rotated(asked: Asked) -> tuple[Encoder, Cost]:
    """The backbone with the rotation that `embedtrain-rotate` chooses for each layer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = written(asked.setting.rows, folder / "rows.jsonl")
        loss = {"loss": "cosent"} if asked.setting.scored else {}
        clock = Clock()
        out = embedtrain.rotate(
            asked.model.path, rows, folder / "out", dims=list(asked.model.dims), seed=asked.seed, **loss
        )
        return load_encoder(out, max_length=MAX_LENGTH), clock.cost(0)


def ours(
    asked: Asked,
    *,
    plan: Callable[..., Plan],
    distill: Callable[[], Distill] | None = None,
    rotation: MakesRotation | None = None,
    layer_decay: float = 1.0,
    pooling: type[GatedMean] | None = None,
    dropout: float | None = None,
) -> tuple[Encoder, Cost]:
    """One model by a plan of ours, with what may help it."""
    pl.seed_everything(asked.seed, verbose=False)
    encoder = load_encoder(asked.model.path, max_length=MAX_LENGTH, pooling=pooling, dropout=dropout)
    if rotation is not None:
        layers = rotated_layers(rotation, range(1, encoder.num_layers + 1), encoder.num_layers)
        encoder.rotate(rotation.rotation(layers, encoder.width, asked.seed, None))
    cost = trained(
        encoder,
        asked,
        plan(num_layers=encoder.num_layers, width=encoder.width),
        None if distill is None else distill(),
        rotation=rotation,
        layer_decay=layer_decay,
    )
    return encoder, cost


def separate(
    asked: Asked,
    *,
    size: SubModel,
    pooling: type[GatedMean] | None = None,
    dropout: float | None = None,
) -> tuple[Encoder, Cost]:
    """A model of one size: cut out of the backbone first, then trained at its own depth and width."""
    pl.seed_everything(asked.seed, verbose=False)
    with tempfile.TemporaryDirectory() as name:
        save_encoder(load_encoder(asked.model.path, max_length=MAX_LENGTH), Path(name) / "cut", size)
        encoder = load_encoder(Path(name) / "cut", max_length=MAX_LENGTH, pooling=pooling, dropout=dropout)
    return encoder, trained(encoder, asked, Full(num_layers=encoder.num_layers, width=encoder.width))


def trained(
    encoder: Encoder,
    asked: Asked,
    plan: Plan,
    distill: Distill | None = None,
    *,
    rotation: MakesRotation | None = None,
    layer_decay: float = 1.0,
) -> Cost:
    """The encoder trained in place."""
    loss = CoSENT() if asked.setting.scored else InfoNCE()
    return fit(
        encoder,
        BatchLoss(Objective(loss, distill)),
        plan,
        asked.setting.rows,
        batch_size=asked.setting.batch_size,
        lr=asked.lr,
        seed=asked.seed,
        steps=asked.setting.steps,
        precision=asked.precision,
        layer_decay=layer_decay,
        rotation=rotation,
    )


def peer(asked: Asked, *, every: bool) -> tuple[Encoder, Cost]:
    """Matryoshka2dLoss: all layers and dims at every step, or drawn as by default."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (
        CoSENTLoss,
        Matryoshka2dLoss,
        MultipleNegativesRankingLoss,
    )

    setting = asked.setting
    model = SentenceTransformer(asked.model.path, device="cpu")
    model.max_seq_length = MAX_LENGTH
    inner = CoSENTLoss(model) if setting.scored else MultipleNegativesRankingLoss(model)
    drawn = {"n_layers_per_step": -1, "n_dims_per_step": -1} if every else {}
    loss = Matryoshka2dLoss(model, inner, matryoshka_dims=sorted(asked.model.dims, reverse=True), **drawn)
    columns = ("sentence1", "sentence2", "score") if setting.scored else ("query", "positive")
    table = Dataset.from_list([{column: row[column] for column in columns} for row in setting.rows])
    with tempfile.TemporaryDirectory() as folder:
        settings = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=setting.steps,
            per_device_train_batch_size=setting.batch_size,
            dataloader_drop_last=True,
            learning_rate=asked.lr,
            lr_scheduler_type="linear",
            warmup_steps=math.ceil(0.1 * setting.steps),
            weight_decay=0.01,
            max_grad_norm=1.0,
            seed=asked.seed,
            bf16=asked.precision == "bf16-mixed",
            use_cpu=True,
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=max(1, setting.steps // 5),
            dataloader_pin_memory=False,
        )
        trainer = SentenceTransformerTrainer(model=model, args=settings, train_dataset=table, loss=loss)
        clock = Clock()
        trainer.train()
        cost = clock.cost(trainer.state.global_step)
        assert cost.steps == setting.steps, (cost.steps, setting.steps)
        model.save_pretrained(f"{folder}/model")
        return load_encoder(f"{folder}/model", max_length=MAX_LENGTH), cost


def written(rows: Sequence[Row], path: Path) -> Path:
    """The rows as a file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


# of scored pairs, and of pairs where other rates are tried, from the smallest size on
UP_TO_8, UP_TO_16 = (2e-4, 4e-4, 8e-4), (2e-4, 4e-4, 8e-4, 1.6e-3)
SEPARATE_RATES: Sequence[tuple[Sequence[float], ...]] = (
    (UP_TO_16,), (UP_TO_8, UP_TO_16), (UP_TO_8, UP_TO_16), ((2e-4, 4e-4, 1e-4), UP_TO_8),
    ((1e-4, 2e-4, 4e-4),), ((1e-4, 2e-4, 5e-5), (1e-4, 2e-4, 4e-4)),
)  # fmt: skip


def methods(model: Model) -> Mapping[str, Method]:
    """Every method by its name, of a model."""
    dims, depth = {"dims": model.dims}, model.sizes[-1].layer
    pairs = partial(FixedPairs, pairs=model.sizes)
    exits: Mapping[str, Any] = {  # embeddings learn 1.35^6 = 6 times as fast as the last block
        "distill": NeighbourKL, "rotation": Linear(last="identity"), "layer_decay": 1.35 ** (6 / depth)
    }  # fmt: skip
    tokens: Mapping[str, Any] = {"pooling": GatedMean, "dropout": 0.0}
    rates = ((5e-5, 1e-4, 2.5e-5), (1e-4, 2e-4, 5e-5))
    every = partial(ours, plan=pairs, **exits, **tokens)  # what `without` and `with` leave out or change
    return {
        "untouched": Method(untouched, rates=(0.0,), seeded=False),
        "rotated": Method(rotated, rates=(0.0,)),
        **{
            f"{name}_{size}": Method(partial(separate, size=size, **how), *rates, size=size)
            for name, how in (("separate", {}), ("separate_gated", tokens))
            for size, rates in zip(model.sizes, SEPARATE_RATES, strict=True)
        },
        "mrl": Method(partial(ours, plan=partial(Dims, **dims))),
        "two_dmse": Method(partial(ours, plan=partial(Random2d, **dims), distill=LayerKL)),
        "pairs": Method(partial(ours, plan=pairs, distill=PrefixKL)),
        "grid": Method(partial(ours, plan=partial(Grid, **dims))),
        "exits": Method(partial(ours, plan=pairs, **exits), (5e-5, 1e-4), (1e-4, 2e-4)),
        "ours": Method(partial(every, rotation=Linear()), *rates),
        "defaults": Method(partial(ours, plan=pairs, pooling=GatedMean), (2e-5, 1e-4)),
        "defaults_own": Method(partial(ours, plan=pairs), (2e-5, 1e-4)),
        "without_gates": Method(partial(every, pooling=None), (5e-5,), tested=False),
        "without_distill": Method(partial(every, distill=None), (5e-5, 1e-4), (1e-4, 2e-4), tested=False),
        "without_rotation": Method(partial(every, rotation=None), (5e-5,), tested=False),
        "without_layer_decay": Method(partial(every, layer_decay=1.0), (5e-5,), tested=False),
        "with_last_matrix": Method(every, (5e-5, 1e-4), (1e-4, 2e-4)),
        "with_dropout": Method(partial(every, dropout=None), (5e-5,), tested=False),
        "peer": Method(partial(peer, every=True), UP_TO_8, UP_TO_16),
        "peer_default": Method(partial(peer, every=False)),
    }


def tuned_by(run: Mapping[str, Any], method: Method, model: Model) -> float:
    """What chooses the learning rate: the mean over the grid on development data, or of the one size."""
    (scores,) = run["dev"].values()
    return fmean(scores[str(cell)] for cell in (model.grid if method.size is None else [method.size]))


METHODS = tuple(methods(MINILM))  # names; those of separate models have their sizes
