"""Data of tests: modules whose settings and arguments of the run are one list of keywords, rows, tokens."""

from dataclasses import fields

import torch

from embedtrain.data.module import DataModule
from embedtrain.data.read.sources import Example
from embedtrain.settings.commands import DataSettings
from embedtrain.types import Inputs

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
NAMES = {item.name for item in fields(DataSettings)}


def data_module(**options):
    """The module of `DataSettings` and arguments of the run."""
    settings = {key: options.pop(key) for key in NAMES & options.keys()}
    return DataModule(DataSettings(**settings), **options)


def one_token(texts, role, prompts=None):
    """Each text as one token, its length; worker processes can import it."""
    ids = torch.tensor([[len(text)] for text in texts])
    return Inputs(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros(len(texts), dtype=torch.int64))


def example(query, positives=("p",), negatives=(), score=None, task="t", where="a.jsonl:1", **more):
    return Example(query, tuple(positives), tuple(negatives), score, task, where, **more)
