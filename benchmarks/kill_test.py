"""Kill a small run again and again, and compare what it ends with to the run that nobody killed.

    python benchmarks/kill_test.py --kills 50

Two runs that keep all the state a run can have (they differ where parts exclude each other) are each trained
once without a kill. Then the same command is started, killed by SIGKILL at a random moment and started again,
until it finishes; and from the beginning under another name, until there were as many kills as asked for.
Final weights, metrics, optimiser, queue and best score must be equal bit for bit.
"""
# ruff: noqa: ANN401 - containers of anything, and numbers that processes share

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from ctypes import c_int
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import warm

STEPS, SAVED_EVERY, VALIDATED_EVERY = 36, 3, 4
WORDS = (
    "river bank money tree house sun rain cat dog bird fish plays runs eats sleeps sings guitar piano ball "
    "red blue green small big old new quick slow man woman child"
).split()
EVERY_RUN = [
    "data.batch_size=8",
    f"data.max_steps={STEPS}",
    "data.validation_rows=24",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.accumulate=2",
    f"trainer.validate_every={VALIDATED_EVERY}",
    f"trainer.checkpoint_every={SAVED_EVERY}",
    "trainer.log_every=1",
    "contrast.learn_temperature=true",
    "contrast.hardness=all",
    "+contrast.hardness_strength={_target_: embedtrain.objective.schedule.Cosine, start: 0, end: 5, "
    "steps: 30}",
    "+objective.weighting={_target_: embedtrain.objective.weighting.Progressive, steps: 30}",
    "gradcache=chunks",
    "gradcache.max_tokens=64",
    "optim.lr=1e-3",
    "optim.schedule=cosine",
    "evaluation.tasks=[]",
]
RUNS = {  # a queue holds the layers of past steps, so it and a plan that draws layers exclude each other
    "random2d": [
        "plan=scheduled",
        "+plan.plan={_target_: embedtrain.objective.plan.Random2d, dims: [8, 16, 32]}",
        "+plan.weights=[{dim: 8, weight: {_target_: embedtrain.objective.schedule.Linear, start: 1, "
        "end: 0.1, steps: 30}}]",
    ],
    "queue": ["plan=fixed_pairs", "plan.pairs=[[1,8],[2,16],[4,32]]", "queue=documents", "queue.size=40"],
}


class Kill(NamedTuple):
    """One SIGKILL."""

    phase: str  # where it came
    done: int  # optimiser steps taken when it came
    saved: int  # of those, kept by the newest checkpoint


def main() -> None:
    """The command line: run, compare, report; status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--words", nargs="*", default=[], help="further words of the command, e.g. of mining")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedtrain-kill-") as folder:
        found = kill_test(Path(folder), given.kills, random.Random(given.seed), given.words)
    text = json.dumps(found, indent=2) + "\n"
    print(text, end="")
    if given.out is not None:
        given.out.write_text(text, "utf-8")
    if found["different"] or found["bytes_lost"]:
        sys.exit("what was killed differs from what was not")


def kill_test(folder: Path, kills: int, draw: random.Random, words: list[str]) -> dict[str, Any]:
    """The report, as it is printed."""
    begun = time.monotonic()
    configs = write_runs(folder, words)
    expected = {kind: uninterrupted(folder, kind, configs[kind]) for kind in RUNS}
    found: list[Kill] = []
    different, lost, starts, runs = [], 0, 0, 0
    while len(found) < kills:
        kind = list(RUNS)[runs % len(RUNS)]
        name = f"{kind}_{runs}"
        more, started = until_finished(folder, configs[kind] | {"name": name}, draw, kills - len(found))
        found, starts, runs = found + more, starts + started, runs + 1
        result = contents(folder / "runs" / name)
        different += [f"{name}: {part}" for part in result if result[part] != expected[kind][part]]
        lost += sum(abs(len(result[part]) - len(expected[kind][part])) for part in ("metrics", "model"))
        print(f"{name}: {len(more)} kills, {'different' if different else 'the same bits'}", file=sys.stderr)
    return {
        "kills": len(found),
        "kills_by_phase": dict(Counter(kill.phase for kill in found)),
        "runs": runs,
        "steps_of_a_run": STEPS,
        "restarts": starts - runs,
        "steps_redone": sum(kill.done - kill.saved for kill in found),
        "bytes_lost": lost,
        "different": different,
        "seconds": round(time.monotonic() - begun, 1),
    }


def uninterrupted(folder: Path, kind: str, config: dict[str, Any]) -> dict[str, bytes]:
    """What a run ends with that nobody kills."""
    name = f"{kind}_whole"
    process = warm.start_run(config | {"name": name}, folder, folder / f"{name}.log")
    process.join()
    if process.exitcode:
        sys.exit((folder / f"{name}.log").read_text("utf-8"))
    return contents(folder / "runs" / name)


def until_finished(
    folder: Path, config: dict[str, Any], draw: random.Random, most: int
) -> tuple[list[Kill], int]:
    """Start, kill, start again; the kills, and how often it was started."""
    kills: list[Kill] = []
    starts, log, run = 0, folder / f"{config['name']}.log", folder / "runs" / config["name"]
    while True:
        phase, done, seen = (RawValue(c_int, 0) for _ in range(3))
        process = warm.start_run(config, folder, log, watch=(phase, done, seen))
        starts += 1
        if len(kills) < most:
            _wait(process, seen, draw)
            if process.is_alive():
                os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        if process.exitcode == 0:
            return kills, starts
        if process.exitcode != -signal.SIGKILL:
            sys.exit(log.read_text("utf-8")[-4000:])
        saved = newest_step(run)
        kills.append(Kill(warm.PHASES[phase.value], max(done.value, saved), saved))


def _wait(process: Any, seen: Any, draw: random.Random) -> None:
    """Until the moment of the kill: one in ten before any step, the others in any of the next phases."""
    if draw.random() < 0.1:
        time.sleep(draw.uniform(0.0, 1.0))
        return
    phases = draw.randint(1, 16)
    while process.is_alive() and seen.value < phases:
        time.sleep(0.0005)
    time.sleep(draw.uniform(0.0, 0.03))


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    steps = [int(path.stem.partition("_")[2]) for path in (run / "checkpoints").glob("step_*.ckpt")]
    return max(steps, default=0)


def contents(run: Path) -> dict[str, bytes]:
    """What a finished run consists of, without the one thing that is no function of it: its speed."""
    import torch

    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        row.pop("train/pairs_per_second", None)
    parts = {
        "weights": state["state_dict"],
        "optimizer": state["optimizer_states"],
        "queue": state.get("queue"),
    }
    parts |= {"schedule": state["lr_schedulers"], "callbacks": state["callbacks"], "best": best["state_dict"]}
    found = {name: hashlib.sha256(_bytes(part)).digest() for name, part in parts.items()}
    found["metrics"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    found["model"] = (run / "model/model.safetensors").read_bytes()
    return found


def _bytes(part: Any) -> bytes:
    """A nest of containers and tensors, to the last bit."""
    import torch

    if isinstance(part, torch.Tensor):
        return repr((part.dtype, tuple(part.shape))).encode() + part.contiguous().numpy().tobytes()
    if isinstance(part, dict):
        return b"".join(repr(key).encode() + _bytes(value) for key, value in part.items())
    if isinstance(part, list | tuple):
        return b"".join(_bytes(value) for value in part)
    return repr(part).encode()


def write_runs(folder: Path, words: list[str]) -> dict[str, dict[str, Any]]:
    """A backbone, two data sets, and the composed configs of the runs."""
    import hydra
    from hydra.core.config_store import ConfigStore

    from embedtrain.cli.launch import NODES, SCHEMAS
    from embedtrain.config import config_dir, plain, schema

    write_backbone(folder / "backbone")
    draw = random.Random(5)
    for name, count in (("one", 90), ("two", 60)):
        rows = [_row(draw) for _ in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    given = [
        "name=x",
        f"output_root={folder / 'runs'}",
        f"backbone.path={folder / 'backbone'}",
        f"data.train=[{folder / 'one.jsonl'},{folder / 'two.jsonl'}]",
    ]
    for name, config_class in SCHEMAS.items():
        ConfigStore.instance().store(name=NODES[name], node=schema(config_class))
    with hydra.initialize_config_dir(str(config_dir("conf")), version_base="1.3"):
        return {
            kind: plain(hydra.compose("train", overrides=[*given, *EVERY_RUN, *own, *words]))
            for kind, own in RUNS.items()
        }


def _row(draw: random.Random) -> dict[str, Any]:
    words = draw.sample(WORDS, 5)
    return {
        "query": " ".join(words),
        "positive": " ".join([*words[:3], *draw.sample(WORDS, 3)]),
        "negatives": [" ".join(draw.sample(WORDS, 4)) for _ in range(2)],
    }


def write_backbone(folder: Path) -> None:
    """A BERT of 4 layers x 32 with random weights, dropout on, and a tokenizer that knows the words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    ).save_pretrained(folder)


if __name__ == "__main__":
    main()
