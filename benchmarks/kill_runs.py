"""The runs that `kill_test.py` kills: their data, their model and their settings.

The model is made here and not taken from the tests, which change for reasons of their own.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from embedtrain.settings.commands import TrainSettings

STEPS = 36
WORDS = (
    "river bank money tree house sun rain cat dog bird fish plays runs eats sleeps sings guitar piano ball "
    "red blue green small big old new quick slow man woman child"
).split()
EVERY_RUN = [
    "data.batch_size=8",
    f"trainer.max_steps={STEPS}",
    "data.validation_rows=24",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=4",
    "trainer.checkpoint_every_n_steps=3",
    "trainer.log_every_n_steps=1",
    "loss.learn_temperature=true",
    "loss.hardness=all",
    "+loss.hardness_strength={_target_: embedtrain.objective.schedule.Cosine, start: 0, end: 5, steps: 30}",
    "+objective.weighting={_target_: embedtrain.objective.losses.weighting.Progressive, steps: 30}",
    "gradcache=chunks",
    "gradcache.max_tokens=64",
    "optim.lr=1e-3",
    "optim.schedule=cosine",
    "mining=refresh",
    "mining.every=5",
    "mining.delay=2",
    "mining.most_queries=60",  # drawn anew each time; the others keep what earlier files say
    "mining.selection.per_row=2",
    "mining.selection.rules.0.perc_pos=1.0",
    "final_weights=best",
    "evaluation.tasks=[]",
]
RUNS = {  # a queue holds the layers of past steps, so it and a plan that draws layers exclude each other
    "random2d": [
        "plan=scheduled",
        "+plan.plan={_target_: embedtrain.objective.plan.Random2d, dims: [8, 16, 32]}",
        "+plan.weights=[{dim: 8, weight: {_target_: embedtrain.objective.schedule.Linear, start: 1, "
        "end: 0.1, steps: 30}}]",
        "negatives=gist",
        "guide=model",
    ],
    "queue": [
        "plan=fixed_pairs",
        "plan.pairs=[[1,8],[2,16],[4,32]]",
        "queue=documents",
        "queue.size=40",
        "eval_during=sweep",  # decides instead of validation what is best
        "eval_during.tasks=[pairs:dev]",
        "eval_during.every=9",
        "eval_during.patience=30",
    ],
}


def write_runs(folder: Path, words: list[str]) -> dict[str, TrainSettings]:
    """A backbone, two data sets, one to measure on, and the settings of the runs."""
    from embedtrain.cli.launch import settings_from

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
    own = {**RUNS, "random2d": [*RUNS["random2d"], f"guide.path={folder / 'backbone'}"]}
    own["queue"] = [*RUNS["queue"], f"evaluation.data_root={write_scored_pairs(folder / 'measured', draw)}"]
    return {kind: settings_from("train", [*given, *EVERY_RUN, *more, *words]) for kind, more in own.items()}


def _row(draw: random.Random) -> dict[str, Any]:
    words = draw.sample(WORDS, 5)
    return {
        "query": " ".join(words),
        "positive": " ".join([*words[:3], *draw.sample(WORDS, 3)]),
        "negatives": [" ".join(draw.sample(WORDS, 4)) for _ in range(2)],
    }


def write_scored_pairs(root: Path, draw: random.Random) -> Path:
    """A development split of 20 scored pairs, which the name `pairs` means under `root`."""
    folder = root / "sts/pairs"
    folder.mkdir(parents=True)
    rows = [_row(draw) for _ in range(20)]
    pairs = [
        {"sentence1": row["query"], "sentence2": row["positive"], "score": draw.uniform(0, 5)} for row in rows
    ]
    (folder / "dev.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
    return root


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
