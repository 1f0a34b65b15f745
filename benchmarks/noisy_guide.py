"""Does a guide help where some negatives are false? MiniLM trained on noisy pairs, with and without it.

    python benchmarks/noisy_guide.py --data-root DIR [--seeds 3] [--ways none gist ...] [--tiny]

Rows are the STS-B training pairs with a score of 4 or more (1,406), each with `--hard` hard negatives. Noise,
by seed: of `--share` of the rows the positive is copied under `--copies` other queries as one of their hard
negatives, each copy edited in one place so that its text is another: its case, its punctuation, or a function
word less. Whenever the row meets such a copy in a batch, it is a false negative, and no label says so. All
other hard negatives are random sentences of pairs with a lower score. Ways to train:

    none         every document of the batch is a negative
    gist         negatives=gist: out goes what the untouched MiniLM finds as similar as the positive
    gist_margin  negatives=gist_margin: the same from 95 % of the positive's similarity on
    clean        as none, with random sentences for the copies: what the noise costs

InfoNCE on the six fixed pairs; rows, order, steps and learning rate of a seed are the same for all ways. Each
is scored by Spearman x 100 on stsbenchmark test and sickr dev at the full size and as the mean of the six.

Caught: of the false negatives met in the batches of `gist`, the share that a rule takes out; lost: of all
other negatives, the share that it takes out. "Other" means that construction did not make it false: sentences
of STS-B resemble each other, and some of what is lost should be. MiniLM reads no case, so that copies which
differ in case alone have the positive's similarity exactly. Counted for each rule by the pairing that trains.

Default: 2 ways x 3 seeds x 1 epoch (21 steps of 64 rows, 256 texts each), 10-15 minutes on two weak cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from in_process import BACKBONE, MAX_LENGTH, Row, arguments, fit, paired, read, spread, write  # before torch
from noise import KINDS, Noisy, noisy

# isort: split
import pytorch_lightning as pl
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from embedtrain.cli.process.logs import set_up_logs
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.guides.guide import load_guide
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.plan import FixedPairs
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.objective.similarity.pairing import QUERY_DOCS, Queued
from embedtrain.rules import MarginPos, PercPos, Rule
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.types import Guide, Links, Pairing, SubModel

LEAST_SCORE = 4.0  # of a pair that trains
SIZES = tuple(SubModel(*size) for size in ((1, 32), (2, 64), (3, 96), (4, 192), (5, 256), (6, 384)))
RULES: Mapping[str, Rule] = {
    "gist": MarginPos(),
    "gist_margin": PercPos(0.95),
    "absolute margin 0.05": MarginPos(0.05),
}
WAYS: Mapping[str, tuple[Rule, ...]] = {
    "none": (),
    "gist": (RULES["gist"],),
    "gist_margin": (RULES["gist_margin"],),
    "clean": (),
}
TESTS = {"stsbenchmark": "stsbenchmark/test.jsonl", "sickr": "sickr/dev.jsonl"}
Scores = dict[str, float]  # measure -> Spearman x 100


def _allowed(links: Links, rules: Sequence[Rule] = (), guide: Guide | None = None) -> torch.Tensor:
    """What each query may be contrasted with, (B, C) bool."""
    candidates = Negatives(rules=rules)(links, guide=guide).candidates
    return candidates.allowed(torch.arange(len(links.query)), QUERY_DOCS, None).blocks.query_docs


class Counted:
    """`Negatives` that also counts what each of `RULES` would take out of the batches it pairs."""

    def __init__(self, rules: Sequence[Rule], data: Noisy) -> None:
        self.pair, self.data = Negatives(rules=rules), data
        self.met = dict.fromkeys((*KINDS, "other"), 0)
        self.out = {name: dict.fromkeys(self.met, 0) for name in RULES}
        self.queries = self.queries_with = 0

    def __call__(self, links: Links, *, step: int, guide: Guide | None, queued: Queued | None) -> Pairing:
        """The pairing of the batch."""
        if guide is not None:
            self._count(links, guide)
        return self.pair(links, step=step, guide=guide, queued=queued)

    def _count(self, links: Links, guide: Guide) -> None:
        rows = links.rows.tolist()
        documents = links.content_ids[links.docs].tolist()
        nobody: frozenset[int] = frozenset()
        false = torch.tensor(
            [[row in self.data.false_for.get(key, nobody) for key in documents] for row in rows]
        )
        allowed = _allowed(links).clone()  # (B, C)
        allowed[torch.arange(len(rows)), links.positive] = False
        self.queries += len(rows)
        self.queries_with += int((false & allowed).any(1).sum())
        kinds = [self.data.kind.get(key) for key in documents]
        masks = {kind: false & torch.tensor([item == kind for item in kinds]) for kind in KINDS}
        masks = {kind: mask & allowed for kind, mask in (masks | {"other": ~false}).items()}
        for kind, mask in masks.items():
            self.met[kind] += int(mask.sum())
        for name, rule in RULES.items():
            left = _allowed(links, [rule], guide)
            for kind, mask in masks.items():
                self.out[name][kind] += int((mask & ~left).sum())

    def counts(self) -> dict[str, Any]:
        """Everything counted."""
        return {"met": self.met, "out": self.out, "queries": self.queries, "queries_with": self.queries_with}


def trained(way: str, data: Noisy, options: argparse.Namespace, seed: int) -> tuple[Encoder, Counted]:
    """MiniLM after training on the rows in one of the ways."""
    pl.seed_everything(seed, verbose=False)
    encoder = load_encoder(BACKBONE, max_length=MAX_LENGTH)
    counted = Counted(WAYS[way], data)
    guide = load_guide(BACKBONE, max_length=MAX_LENGTH) if WAYS[way] else None
    loss = BatchLoss(Objective(InfoNCE()), counted, guide=guide)
    fit(
        encoder,
        loss,
        FixedPairs(SIZES, num_layers=encoder.num_layers, width=encoder.width),
        data.rows,
        batch_size=options.batch_size,
        lr=options.lr,
        seed=seed,
        epochs=options.epochs,
        steps=options.steps,
        guide_process=None if guide is None else guide.process,
    )
    return encoder, counted


def measured(encoder: Encoder, sets: Mapping[str, Sequence[Row]]) -> Scores:
    """Each set at the full size, and the mean over the six."""
    found = {}
    for name, rows in sets.items():
        place: dict[str, int] = {}
        left, right = (
            [place.setdefault(row[side], len(place)) for row in rows] for side in ("sentence1", "sentence2")
        )
        texts = encoder.encode(list(place), [sub.layer for sub in SIZES])
        labels = [row["score"] for row in rows]
        cells = []
        for sub in SIZES:
            vectors = texts.at(sub)
            cosine = (vectors[left] * vectors[right]).sum(1)
            cells.append(100 * float(spearmanr(cosine.numpy(), labels).statistic))
        found |= {f"{name}, full": cells[-1], f"{name}, mean of six": fmean(cells)}
    return found


def options_given() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["none", "gist"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--hard", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, help="instead of --epochs")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--limit", type=int, help="use only so many rows to train and of each test")
    parser.add_argument("--tiny", action="store_true", help="does it run: 2 seeds, 2 steps, 80 rows")
    given = arguments(parser, "noisy_guide")
    if given.tiny:
        given.seeds, given.steps, given.batch_size, given.limit = 2, 2, 16, 80
    if given.share * given.copies > 0.9 * given.hard:
        parser.error("share x copies must leave a tenth of the hard negatives random: raise --hard")
    return given


def main() -> None:
    """Train, score, count, print and write; the file is written after every training."""
    options = options_given()
    set_up_logs()
    sts = options.data_root / "sts"
    scored = read(sts / "stsbenchmark/train.jsonl")
    alike = [row for row in scored if row["score"] >= LEAST_SCORE]
    pairs = [{"query": row["sentence1"], "positive": row["sentence2"]} for row in alike][: options.limit]
    labelled = {text for row in alike for text in (row["sentence1"], row["sentence2"])}
    fillers = [
        row[side] for row in scored for side in ("sentence1", "sentence2") if row["score"] < LEAST_SCORE
    ]
    fillers = [text for text in dict.fromkeys(fillers) if text not in labelled]
    sets = {name: read(sts / path)[: options.limit] for name, path in TESTS.items()}
    runs = [(way, seed) for seed in range(options.seeds) for way in options.ways]
    print(f"{len(pairs)} pairs, {len(fillers)} random sentences, {len(runs)} trainings", flush=True)
    untouched = measured(load_encoder(BACKBONE, max_length=MAX_LENGTH), sets)
    scores: dict[str, list[Scores]] = {way: [] for way in options.ways}
    counts: dict[str, list[dict[str, Any]]] = {way: [] for way in options.ways}
    begun = time.perf_counter()
    for number, (way, seed) in enumerate(runs, 1):
        share = 0.0 if way == "clean" else options.share
        data = noisy(pairs, fillers, share=share, copies=options.copies, hard=options.hard, seed=seed)
        encoder, counted = trained(way, data, options, seed)
        scores[way].append(measured(encoder, sets))
        counts[way].append(counted.counts())
        spent = time.perf_counter() - begun
        print(
            f"{number}/{len(runs)} {way}, seed {seed}: "
            + ", ".join(f"{name} {value:.2f}" for name, value in scores[way][-1].items())
            + f"   {spent:.0f} s, {spent / number * (len(runs) - number):.0f} s to go",
            flush=True,
        )
        write(options.out, options, {"untouched": untouched, "scores": scores, "counts": counts})
    tests = show(untouched, scores)
    show_counts([found for way in counts for found in counts[way] if found["queries"]][: options.seeds])
    found = {"untouched": untouched, "scores": scores, "counts": counts, "tests": tests}
    write(options.out, options, found)


def show(untouched: Scores, scores: Mapping[str, Sequence[Scores]]) -> dict[str, Any]:
    """The table, and the differences to the first way of each seed; the tests of those."""
    table = Table(title="Spearman x 100, mean ± standard deviation over seeds", box=box.SIMPLE_HEAD)
    table.add_column("way")
    for name in untouched:
        table.add_column(name, justify="right")
    table.add_row("untouched", *(f"{value:.2f}" for value in untouched.values()))
    for way, seeds in scores.items():
        cells = [[found[name] for found in seeds] for name in untouched]
        table.add_row(way, *(f"{fmean(cell):.2f} ± {spread(cell):.2f}" for cell in cells))
    Console(width=150).print(table)
    first, *others = scores
    tests: dict[str, Any] = {}
    for way in others:
        print(f"{way} less {first}, each seed; then mean and paired tests over {len(scores[way])} seeds")
        for name in untouched:
            ahead = [mine[name] - base[name] for mine, base in zip(scores[way], scores[first], strict=True)]
            result = paired(ahead)
            tests[f"{way} less {first}, {name}"] = result._asdict()
            print(f"  {name:28} {' '.join(f'{value:+.2f}' for value in ahead)}   {result}")
    return tests


def show_counts(seeds: Sequence[Mapping[str, Any]]) -> None:
    """What each rule takes out of the batches of the first way with a guide, all seeds together."""
    if not seeds:
        return
    met = {kind: sum(found["met"][kind] for found in seeds) for kind in (*KINDS, "other")}
    false = sum(met[kind] for kind in KINDS)
    queries, touched = (sum(found[key] for found in seeds) for key in ("queries", "queries_with"))
    print(
        f"batches: {false} false negatives of {false + met['other']}, at {touched} of {queries} queries "
        f"({100 * touched / max(queries, 1):.1f} %)"
    )
    for name in RULES:
        out = {kind: sum(found["out"][name][kind] for found in seeds) for kind in met}
        caught = sum(out[kind] for kind in KINDS)
        kinds = ", ".join(f"{kind} {100 * out[kind] / max(met[kind], 1):.0f}" for kind in KINDS)
        print(
            f"  {name:22} caught {100 * caught / max(false, 1):5.1f} % ({kinds})   "
            f"lost {100 * out['other'] / max(met['other'], 1):.3f} % of the others"
        )


if __name__ == "__main__":
    main()
