"""Is one model that can be cut as good as separate ones, and what makes it better? Two settings, two models.

    python benchmarks/study_2d.py --data-root DIR                       everything that is not there yet
    python benchmarks/study_2d.py --data-root DIR --only pairs --setting stsb --lr 2e-4 --seed 0      a piece
    python benchmarks/study_2d.py --data-root DIR --backbone mpnet_base --seeds 1
    python benchmarks/study_2d.py --tables                              docs/study.md from what is there

`stsb`: 5,749 scored pairs of STS-B, CoSENT, one epoch of batches of 32. `dictionary`: definition ->
headword of the quickstart, InfoNCE, 200 batches of 64. Every method trains with each of its rates and
seed 0; the highest mean on development data chooses one: of the 30 cells, for a model of one size its own.
Only then are test sets scored, with that rate and seeds 0, 1, ... Each run is a file in
benchmarks/results/study_2d/, so that what was stopped goes on; --work keeps the models between the two.

Scored: Spearman x 100 of STS-B and SICK-R (development part), nDCG@10 x 100 of the reverse dictionary and of
Cranfield. Of MiniLM layers 1..6 x dims 32, 64, 128, 256, 384 and the sizes (1, 32) ... (6, 384); of
mpnet_base every second layer x dims 32, 64, 128, 256, 512, 768, which has the sizes (2, 32) ... (12, 768).
Texts are encoded, and models trained, in --precision, sentence-transformers' too; where none is given, in
float32 for MiniLM on STS-B, in bf16-mixed for the rest.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from full_size_tasks import Task, measured_cells, pair_task, ranking_task, search_task
from in_process import arguments, read

# isort: split
import torch
from study_methods import (
    METHODS,
    MINILM,
    MODELS,
    Asked,
    Method,
    Model,
    Setting,
    compared_in,
    methods,
    tuned_by,
)
from study_tables import write_page

from embedtrain.cli.process.logs import set_up_logs
from embedtrain.data.dictionary import prepare
from embedtrain.files.atomic import atomic_file
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.types import SubModel

RESULTS = Path(__file__).parent / "results" / "study_2d"
SETTINGS = ("stsb", "dictionary")
TESTS = ("stsb", "sickr", "dictionary", "cranfield")
DICTIONARY_STEPS = 200
Run = dict[str, Any]  # what a file holds


def options_given() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, nargs="+", default=list(SETTINGS))
    parser.add_argument("--backbone", choices=MODELS, default=MINILM.name)
    parser.add_argument("--only", nargs="+", metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--lr", type=float, help="only this learning rate, scored on development data")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tests", choices=TESTS, nargs="+", default=list(TESTS), help="test sets to score")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--work", type=Path, default=Path("runs/study_2d"), help="models and prepared data")
    parser.add_argument("--tables", action="store_true", help="train nothing, write docs/study.md")
    parser.add_argument("--tiny", action="store_true", help="does it run: 2 steps, 16 rows, 20 texts")
    given = arguments(parser, "study_2d")
    given.results = given.work / "tiny" if given.tiny else RESULTS
    if unknown := sorted({*(given.only or ())} - {*methods(MODELS[given.backbone])}):
        parser.error(f"no method of {given.backbone}: {', '.join(unknown)}")
    return given


def main() -> None:
    """Train and score what is missing, then write the page."""
    options = options_given()
    set_up_logs()
    for name in () if options.tables else options.setting:
        study = Study(name, options)
        for method in options.only or study.methods:
            study.carry_out(method)
    if not options.tiny:
        write_page(options.results)


class Study:
    """One setting: its rows, its development and test sets, and the runs that there are."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        root, self.options, self.limit = options.data_root, options, 20 if options.tiny else None
        self.model: Model = MODELS[options.backbone]
        self.methods = methods(self.model)
        self.precision: str = options.precision or compared_in(name, self.model)
        words = options.work / ("dictionary_tiny" if options.tiny else "dictionary")
        prepare(words, **({"train_words": 200, "corpus_words": 1200} if options.tiny else {}))
        retrieval = words / "retrieval" / "reverse-dictionary"
        if name == "stsb":
            rows = read(root / "sts/stsbenchmark/train.jsonl")[: 64 if options.tiny else None]
            self.setting = Setting(name, rows, True, 32, 2 if options.tiny else len(rows) // 32)
            self.dev = {"stsb": pair_task(root / "sts/stsbenchmark/dev.jsonl", "score", self.limit)}
        else:
            rows = read(words / "train.jsonl")
            self.setting = Setting(name, rows, False, 64, 2 if options.tiny else DICTIONARY_STEPS)
            self.dev = {"dictionary": words_task(words / "validation.jsonl", retrieval, self.limit)}
        tests: dict[str, Callable[[], Task]] = {
            "stsb": lambda: pair_task(root / "sts/stsbenchmark/test.jsonl", "score", self.limit),
            "sickr": lambda: pair_task(root / "sts/sickr/dev.jsonl", "score", self.limit),
            "dictionary": lambda: search_task(retrieval, None if self.limit is None else 600),
            "cranfield": lambda: search_task(
                root / "retrieval/cranfield", None if self.limit is None else 200
            ),
        }
        self.test = {test: tests[test]() for test in options.tests}

    def carry_out(self, name: str) -> None:
        """Every run of a method that is asked for and not there: rates on dev, then seeds on test."""
        method, options = self.methods[name], self.options
        if options.lr is not None:
            self.run(name, options.lr, options.seed or 0)
            return
        runs = [self.run(name, lr, 0) for lr in method.tried(self.setting, self.model)]
        if not method.tested:
            return
        best = max(runs, key=lambda run: tuned_by(run, method, self.model))["lr"]
        seeds = range(options.seeds) if options.seed is None else [options.seed]
        for seed in seeds if method.seeded else [0]:
            self.run(name, best, seed, test=True)

    def run(self, name: str, lr: float, seed: int, *, test: bool = False) -> Run:
        """One run from its file, or trained now; with the test sets scored where they are asked for."""
        options = self.options
        title = run_name(self.setting.name, self.model, name, lr, seed, self.precision)
        file, model = options.results / f"{title}.json", options.work / "models" / title
        run: Run | None = json.loads(file.read_text("utf-8")) if file.is_file() else None
        known = {} if run is None else run.get("test", {})
        missing = {one: task for one, task in self.test.items() if test and one not in known}
        if run is not None and not missing:
            return run
        method = self.methods[name]
        asked = Asked(self.setting, lr, seed, self.precision, self.model)
        if run is not None and model.is_dir():
            encoder = load_encoder(model)
        else:
            encoder, cost = method.train(asked)
            save_encoder(encoder, model, overwrite=True)
            run = {
                "backbone": self.model.name, "setting": self.setting.name, "method": name, "lr": lr,
                "seed": seed, "precision": self.precision, "threads": options.threads, **cost._asdict(),
                "dev": self.scores(encoder, self.dev, method),
                "versions": {package: version(package) for package in ("torch", "sentence-transformers")},
                "machine": platform.machine(),
            }  # fmt: skip
        if missing:
            run["test"] = {**known, **self.scores(encoder, missing, method)}
        options.results.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as beside:
            beside.write((json.dumps(run, indent=1) + "\n").encode())
        dev = tuned_by(run, method, self.model)
        print(f"{title}: {run['cpu_seconds']:.0f} CPU-s, dev {dev:.2f}", flush=True)
        return run

    def scores(
        self, encoder: Encoder, tasks: Mapping[str, Task], method: Method
    ) -> dict[str, dict[str, float]]:
        """Every task at every cell of the method, x 100."""
        own = SubModel(encoder.num_layers, encoder.width)
        cells = self.model.cells if method.size is None else [own]
        found = measured_cells(encoder, tasks, cells, bfloat16=self.precision == "bf16-mixed")
        return {
            task: {str(cell): round(value, 3) for cell, value in by.items()} for task, by in found.items()
        }


def run_name(setting: str, model: Model, method: str, lr: float, seed: int, precision: str) -> str:
    """The name of a run's file."""
    backbone = "" if model is MINILM else f"{model.name}-"
    return f"{backbone}{setting}-{method}-{lr:g}-s{seed}" + ("" if precision == "32-true" else "-bf16")


def words_task(validation: Path, retrieval: Path, limit: int | None) -> Task:
    """The first definition of each word of validation, which should find it in the test's corpus."""
    firsts: dict[str, str] = {}
    for row in read(validation):
        firsts.setdefault(row["positive"], row["query"])
    docs = [row["text"] for row in read(retrieval / "corpus.jsonl")]
    place = {word: number for number, word in enumerate(docs)}
    words = list(firsts)[:limit]
    gains = torch.zeros(len(words), len(docs))
    for number, word in enumerate(words):
        gains[number, place[word]] = 1.0
    return ranking_task([firsts[word] for word in words], docs, gains)


if __name__ == "__main__":
    main()
