"""A command line composed before Hydra runs it, jobs of a sweep too: a mistake ends it before any begins."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from embedtrain.cli.commands import Command
from embedtrain.cli.line.explain import explained
from embedtrain.cli.line.hydra_node import check_flags, check_folder, check_hydra
from embedtrain.cli.line.quoting import check_readable
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.compose import settings_of
from embedtrain.settings.places import config_dir
from embedtrain.settings.stages import stages_of
from embedtrain.settings.trusted import check_trusted, said_by_words
from embedtrain.types import InputError


class Job(NamedTuple):
    """A run of the command: its number in the sweep, and its overrides."""

    number: int
    words: list[str]


def parsed(words: Sequence[str]) -> Namespace:
    """Flags and overrides of a command line as Hydra takes them."""
    namespace: Namespace = get_args_parser().parse_intermixed_args(list(words))
    namespace.multirun = namespace.multirun or "hydra.mode=MULTIRUN" in namespace.overrides
    return namespace


def check(command: Command, words: Sequence[str]) -> None:
    """Compose what the words describe, to answer mistakes with the nearest name.

    Of a sweep, every value is composed once, with the first values of all others.

    Raises:
        InputError: naming the key or option and the nearest existing one, or two jobs that would write to the
            same place.
    """
    given = parsed(words)
    check_readable(given.overrides)
    check_flags(given)
    with _composer(command, given):
        try:
            jobs, swept = _jobs(command, given)
            places = [_place(command, _composed(command, given, job)) for job in jobs]
        except (HydraException, OmegaConfBaseException, ValueError, AttributeError, AssertionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(explained(command.settings, error, given.overrides, _options)) from error
        except OSError as error:  # of a name that no file can have
            word = max(given.overrides, key=len)
            raise InputError(f"{word[:60]}...: {error.strerror}. Give a shorter name") from error
        for job, place in zip(jobs, places, strict=True):
            before = jobs[places.index(place)]
            if place and before is not job:
                raise InputError(_same_place(command.places[-1], place, before, job, swept))


@contextmanager
def _composer(command: Command, given: Namespace) -> Iterator[None]:
    """Hydra with the search path that `hydra.main` makes of the same flags."""
    home = given.config_path or str(config_dir("conf"))
    with hydra.initialize_config_dir(home, version_base="1.3", job_name=command.config):
        if given.config_dir:
            path = create_config_search_path(home)
            assert isinstance(path, ConfigSearchPathImpl)
            own = Path(given.config_dir).resolve()
            if not own.is_dir():
                raise InputError(f"--config-dir {given.config_dir}: there is no such folder")
            path.prepend("command-line", f"file://{own}", SearchPathQuery(provider="schema"))
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2(task_name=command.config, config_search_path=path)
        yield
    HydraConfig.instance().cfg = None


def _jobs(command: Command, given: Namespace) -> tuple[list[Job], list[str]]:
    """The jobs to compose, and the keys in which they differ."""
    if not given.multirun:
        return [Job(0, given.overrides)], []
    every = OverridesParser.create().parse_overrides(given.overrides)
    first = _config(command, given, [_values(override)[0] for override in every])
    params = OmegaConf.select(first, "hydra.sweeper.params", default=None) or {}
    every += OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    values = [_values(override) for override in every]
    sizes = [len(one) for one in values]
    jobs = []
    for numbers in _one_at_a_time(sizes):
        number = 0
        for place, size in zip(numbers, sizes, strict=True):
            number = number * size + place
        jobs.append(Job(number, [one[place] for one, place in zip(values, numbers, strict=True)]))
    return jobs, [str(override.key_or_group) for override, size in zip(every, sizes, strict=True) if size > 1]


def _one_at_a_time(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Positions: the first of all, then each other one with the first of the others."""
    yield [0] * len(sizes)
    for which, size in enumerate(sizes):
        for position in range(1, size):
            yield [position if other == which else 0 for other in range(len(sizes))]


def _values(override: Override) -> list[str]:
    """The overrides of the jobs that one override of a sweep makes; of an interval, its ends."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if override.is_discrete_sweep():
        return [f"{key}={one}" for one in itertools.islice(override.sweep_string_iterator(), 1000)]
    assert override.input_line is not None
    return [override.input_line]


def _composed(command: Command, given: Namespace, job: Job) -> DictConfig:
    words = [*job.words, f"hydra.job.num={job.number}"] if given.multirun else job.words
    config = _config(command, given, words)
    check_hydra(config, given.overrides)
    check_typed(config, given.overrides)
    with suppress(OmegaConfBaseException):  # of ${hydra:...}, as below
        check_folder(config, many=given.multirun)
    HydraConfig.instance().set_config(config)  # for ${hydra:...} in names
    with open_dict(config):
        del config["hydra"]
    return config


def check_typed(config: DictConfig, words: Sequence[str]) -> None:
    """Refuse a config that lets code of a model run where no override of the command line says so.

    Raises:
        InputError: naming the key.
    """
    node: Any = OmegaConf.to_container(config)
    check_trusted({key: value for key, value in node.items() if key != "hydra"}, said_by_words(words))


def _config(command: Command, given: Namespace, words: list[str]) -> DictConfig:
    """The config with its `hydra` node."""
    composer = GlobalHydra.instance().hydra
    assert composer is not None
    name = given.config_name or command.config
    return composer.compose_config(name, words, RunMode.RUN, from_shell=False)


def _place(command: Command, config: DictConfig) -> tuple[str, ...]:
    """Where a job writes; empty where jobs may share that, or only Hydra itself knows."""
    with suppress(OmegaConfBaseException):  # of ${hydra:...}, which only Hydra itself can answer
        settings: Any = settings_of(command.settings, config)
        if isinstance(settings, TrainSettings):
            stages_of(settings)
        return tuple(str(getattr(settings, key)) for key in command.places)
    return ()


def _same_place(key: str, place: tuple[str, ...], before: Job, job: Job, swept: Sequence[str]) -> str:
    raw = next((word for word in reversed(job.words) if word.startswith(f"{key}=")), f"{key}={place[-1]}")
    differs = [f"hydra:runtime.choices.{name}" if _options(name) else name for name in swept]
    more = "".join(f"_${{{name}}}" for name in differs if f"{{{name}}}" not in raw and "/" not in name)
    stem, dot, suffix = raw.partition(".") if key == "out" else (raw, "", "")
    return (
        f"jobs {before.number} and {job.number} of the sweep would both write {'/'.join(place)}. Put what "
        f"differs into the name: '{stem}{more or '_${hydra:job.num}'}{dot}{suffix}'"
    )


def _options(group: str) -> list[str]:
    composer = GlobalHydra.instance().hydra
    assert composer is not None
    return sorted(composer.config_loader.get_group_options(group))
