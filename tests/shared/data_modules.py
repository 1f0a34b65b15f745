"""Data modules of tests: settings and what a run gives, in one list of keywords."""

from dataclasses import fields

from embedtrain.data.module import DataModule
from embedtrain.settings.commands import DataSettings

NAMES = {item.name for item in fields(DataSettings)}


def data_module(**options):
    """The module of `DataSettings` and arguments of the run."""
    settings = {key: options.pop(key) for key in NAMES & options.keys()}
    return DataModule(DataSettings(**settings), **options)
