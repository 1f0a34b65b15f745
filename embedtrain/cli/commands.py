"""Every command, once: what it does, its settings and examples; and the help that this makes."""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

from embedtrain.settings.commands import (
    CompareSettings,
    EvaluateSettings,
    ExamineSettings,
    ExportSettings,
    MineSettings,
    ReportSettings,
    TrainSettings,
)
from embedtrain.settings.places import config_dir, recipe_names
from embedtrain.settings.tools import MergeSettings, PairsSettings, RotateSettings

CLOSING = "Set anything as key=value; show=true prints every setting with its value and runs nothing."


class Command(NamedTuple):
    """What the command line knows of a command; `run` in the module of its name in cli/ does it."""

    line: str  # what comes out
    more: str  # the second line of its help
    settings: type
    examples: tuple[str, str, str]  # words after the command
    config: str  # its file in conf/
    again: str  # what the same command does after Ctrl-C, whenever that came
    places: tuple[str, ...] = ()  # settings in which two jobs of a sweep must differ: where it writes
    models: bool = True  # whether it runs any; without torch, a command starts in a second


COMMANDS = {
    "train": Command(
        "Train a text-embedding model that can be cut to fewer layers and dimensions.",
        "Rows and a backbone in; a run folder with scores, checkpoints and the model out.",
        TrainSettings,
        (
            "recipe=quickstart_minilm",
            "name=mine data.train=rows.jsonl data.validation_rows=500",
            "name=large data.train=rows.jsonl gradcache=chunks data.batch_size=1024 optim.lr=1e-4",
        ),
        "train",
        "the same command continues from the last checkpoint, or begins where there is none",
        ("output_root", "name"),
    ),
    "evaluate": Command(
        "Score a model at any layers, dimensions and vector types on mteb's tasks or your own.",
        "A model in; scores.jsonl, a table, a heat map and a leaderboard out.",
        EvaluateSettings,
        (
            "model=runs/mine 'tasks=[local]' data_root=data",
            "model=runs/mine 'tasks=[STSBenchmark]' 'layers=[3,6]' 'dims=[64,384]'",
            "model=runs/mine 'tasks=[quick]' plan=true",
        ),
        "evaluate",
        "the same command keeps what is scored, encoded or fetched, and does the rest",
    ),
    "compare": Command(
        "Say which differences between measured runs are more than chance.",
        "Run folders with scores in; tables with tests and intervals, and comparison.json out.",
        CompareSettings,
        ("'runs=[runs/one,runs/two]'", "'runs=[runs/one]'", "'runs=[runs/one,runs/two]' seeds=_s*"),
        "compare",
        "the same command begins anew",
        models=False,
    ),
    "report": Command(
        "Show runs as one interactive page: which cut to ship, and why.",
        "Run folders in, finished or not; report.html, a page that needs no network, out.",
        ReportSettings,
        ("runs/mine", "runs/one runs/two output=pages", "runs/mine --serve"),
        "report",
        "the same command makes the page anew",
        ("output",),
        models=False,
    ),
    "export": Command(
        "Cut a model to a layer and a dimension.",
        "A model in; a smaller sentence-transformers folder, with files for stores, or an ONNX graph, out.",
        ExportSettings,
        (
            "model=runs/mine out=small layer=3 dim=64",
            "model=runs/mine out=graph onnx=true",
            "model=runs/mine out=served layer=3 dim=64 for=pgvector,qdrant",
        ),
        "export",
        "the folder is written whole or not at all; where it is not, the same command makes it",
        ("out",),
    ),
    "mine": Command(
        "Find hard negatives for training rows with a teacher model.",
        "Rows in; the same rows with negatives and the teacher's scores, and statistics out.",
        MineSettings,
        (
            "source=rows.jsonl out=mined.jsonl teacher=minilm",
            "source=rows.jsonl out=mined.jsonl teacher.path=runs/mine selection=margin_pos",
            "source=retrieval/NAME data_root=data out=mined.jsonl teacher=minilm index=hnsw",
        ),
        "mine",
        "the same command keeps the vectors that are encoded, and does the rest",
        ("out",),
    ),
    "pairs": Command(
        "Make training rows of documents that have no labels.",
        "Files or a folder of documents in; rows of query and positive, statistics and examples out.",
        PairsSettings,
        (
            "source=documents.jsonl out=pairs.jsonl",
            "source=pages maker=links out=pairs.jsonl",
            "source=pages maker=generated maker.path=MODEL check_with=runs/mine out=pairs.parquet",
        ),
        "pairs",
        "the same command keeps the queries that a model wrote and the vectors, and does the rest",
        ("out",),
    ),
    "rotate": Command(
        "Rotate the vectors of a finished model, so that their prefixes are worth more.",
        "A model and rows in; the same model with a rotation for each layer, and what was tried, out.",
        RotateSettings,
        (
            "model=runs/mine source=rows.jsonl out=rotated",
            "model=runs/mine source=rows.jsonl out=rotated 'layers=[3,6]' 'dims=[32,64,128]'",
            "model=runs/mine source=rows.jsonl out=rotated 'starts=[identity,pca]' reflections=0",
        ),
        "rotate",
        "the folder is written whole or not at all; where it is not, the same command begins anew",
        ("out",),
    ),
    "merge": Command(
        "Make one model of several runs: an average, task vectors, a soup.",
        "Runs of one base in; a run folder with the model, its scores and those of the runs out.",
        MergeSettings,
        (
            "'runs=[runs/one,runs/two]' name=both",
            "'runs=[runs/one,runs/two]' name=both method=ties base_share=0.3",
            "'runs=[runs/one,runs/two]' name=both method=self_positioning probe=rows.jsonl",
        ),
        "merge",
        "the same command keeps what is merged and measured, and does the rest",
        ("output_root", "name"),
    ),
    "doctor": Command(
        "Look for what is wrong with a run before it trains.",
        "The words of embedtrain-train in; findings with places and cures, and a JSON report out.",
        ExamineSettings,
        (
            "recipe=quickstart_minilm",
            "name=mine data.train=rows.jsonl",
            "name=mine data.train=rows.jsonl doctor.rows=5000 doctor.memory_gb=16",
        ),
        "train",
        "the same command examines the run anew",
    ),
}


def overview() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  embedtrain {name:{width}}  {command.line}" for name, command in COMMANDS.items()]
    head = "Text embeddings that can be cut to fewer layers and dimensions: train, measure, compare."
    return "\n".join([head, "", *lines, "", "--help after a command says more.", CLOSING])


def help_of(name: str) -> str:
    """What a command does, examples, and what it reads."""
    command = COMMANDS[name]
    examples = [f"  embedtrain-{name} {words}" for words in command.examples]
    lines = [command.line, command.more, "", *examples, "", f"keys: {', '.join(_keys(command.settings))}"]
    if groups := [f"  {key}: {_options('conf', key)}" for key in _keys(command.settings) if _is_group(key)]:
        lines += ["", "groups, chosen by name as group=NAME:", *groups]
    if issubclass(command.settings, TrainSettings):
        lines += ["", f"recipes, whole runs as recipe=NAME: {' '.join(recipe_names())}"]
    return "\n".join([*lines, "", f"{CLOSING}\ndocs/configuration.md explains every setting."])


def _keys(settings: type) -> list[str]:
    return [item.name for item in fields(settings)]


def _is_group(key: str) -> bool:
    return (config_dir("conf") / key).is_dir()


def _options(*place: str) -> str:
    folder = config_dir(place[0]).joinpath(*place[1:])
    return " ".join(sorted(path.stem for path in folder.glob("*.yaml")))
