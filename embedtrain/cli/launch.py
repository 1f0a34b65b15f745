"""From the command line to the settings of a command: recipes, nearest names, errors in one line."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ValidationError, open_dict
from omegaconf.errors import OmegaConfBaseException

from embedtrain.cli.commands import COMMANDS, Command
from embedtrain.cli.line.hydra_node import check_hydra
from embedtrain.cli.line.mistyped import mistyped
from embedtrain.cli.process.interruption import INTERRUPTION
from embedtrain.cli.process.logs import set_up_logs
from embedtrain.cli.process.started import check_processes, requires_no_overwrite, requires_whole_weights
from embedtrain.files.atomic import is_disk_full
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.component import Component
from embedtrain.settings.compose import effective, schema, settings_of, without_none
from embedtrain.settings.environment import REFUSED
from embedtrain.settings.names import nearest
from embedtrain.settings.places import config_dir
from embedtrain.types import InputError

AGAIN = "free some space and run the same command again, which keeps what was finished"
HYDRA_ONLY = {"--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}


def launch(name: str, command: Command) -> None:
    """Run a command with the settings that the command line describes, or print them for `show=true`.

    `recipe=NAME` takes recipes/NAME.yaml as the primary config; everything else is ordinary Hydra.
    """
    # Threads that wait by spinning make training several times slower whenever another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _store_schema(command)
    try:
        words, show = _with_recipe(_without_show(sys.argv[1:])), "show=true" in sys.argv[1:]
        sys.argv[1:] = words
        if not HYDRA_ONLY.intersection(words):
            _check(command, words)
    except InputError as error:
        fail(error)

    def run(config: DictConfig) -> None:
        with _errors_in_one_line(config):
            settings: Any = settings_of(command.settings, config)
            if show:
                print(yaml.safe_dump(effective(settings), sort_keys=False, allow_unicode=True), end="")
                return
            if isinstance(settings, TrainSettings):
                _check_surroundings(settings)
            task = importlib.import_module(f"embedtrain.cli.{name}").run
            set_up_logs()
            with INTERRUPTION.working():
                task(settings)

    folder = str(config_dir("conf"))
    hydra.main(version_base="1.3", config_path=folder, config_name=command.config)(run)()


def settings_from(name: str, words: Sequence[str]) -> Any:  # noqa: ANN401 - each command has its own
    """The settings of a command that words of its command line describe.

    Raises:
        InputError: for a setting that is missing or out of range.
    """
    command = COMMANDS[name]
    _store_schema(command)
    with hydra.initialize_config_dir(str(config_dir("conf")), version_base="1.3"):
        return settings_of(command.settings, hydra.compose(command.config, overrides=list(words)))


def _store_schema(command: Command) -> None:
    """Let Hydra know the keys of a command, as the first default of its file in conf/."""
    ConfigStore.instance().store(name=f"{command.config}_schema", node=schema(command.settings))


def _check_surroundings(settings: TrainSettings) -> None:
    check_processes(settings.trainer, os.environ, launcher=_launcher())
    requires_no_overwrite(settings, os.environ)
    requires_whole_weights(settings)
    if settings.data.num_workers:  # each worker would start a thread a core, and warn
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _without_show(words: list[str]) -> list[str]:
    shows = [word for word in words if word.startswith("show=")]
    if shows and shows[-1] not in ("show=true", "show=false"):
        raise InputError(f"{shows[-1]}: show must be true or false, e.g. show=true")
    return [word for word in words if word not in shows]


@contextmanager
def _errors_in_one_line(config: DictConfig) -> Iterator[None]:
    """Say what a user can mend without a traceback, and leave with status 1."""
    try:
        yield
    except InputError as error:
        fail(error)
    except OmegaConfBaseException as error:
        fail(InputError(str(error).partition("\n")[0].rpartition(REFUSED)[2]))
    except OSError as error:
        if not is_disk_full(error):
            raise
        places = (config.get(key) for key in ("out", "output", "output_root"))
        fail(InputError(f"{error.filename or next(filter(None, places), '')}: the disk is full; {AGAIN}"))


def _launcher() -> str | None:
    """What starts the jobs of this sweep: its class and option; None outside one."""
    settings = HydraConfig.get()
    if settings.mode != RunMode.MULTIRUN:
        return None
    return f"{settings.launcher._target_} {settings.runtime.choices['hydra/launcher']}"


def fail(error: InputError) -> NoReturn:
    """Print the error alone and leave with status 1."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def _with_recipe(arguments: list[str]) -> list[str]:
    names = [word.partition("=")[2] for word in arguments if word.startswith("recipe=")]
    if not names:
        return arguments
    folder = config_dir("recipes")
    name = names[-1].removesuffix(".yaml")
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise InputError(f"recipe '{name}' does not exist{nearest(name, known)}" + _list(known))
    rest = [word for word in arguments if not word.startswith("recipe=")]
    return ["--config-dir", str(folder), "--config-name", name, *rest]


def _check(command: Command, arguments: list[str]) -> None:
    """Compose the config once before Hydra does, to answer mistakes with the nearest name.

    Raises:
        InputError: naming the key or option, and the nearest existing one.
    """
    parser = hydra._internal.utils.get_args_parser()
    parsed = parser.parse_args(arguments)
    home, overrides = config_dir("conf"), list(parsed.overrides)
    if parsed.config_dir:
        overrides.append(f"hydra.searchpath=[file://{home}]")
        home = Path(parsed.config_dir).resolve()
    with hydra.initialize_config_dir(str(home), version_base="1.3", job_name=command.config):
        try:
            config = _composed(parsed.config_name or command.config, overrides, multirun=parsed.multirun)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise InputError(_explain(command.settings, error, parsed.overrides)) from error
        check_hydra(config, parsed.overrides)
        if parsed.multirun:  # each job is composed by itself, and checked then
            return
        with open_dict(config):
            del config["hydra"]
        with suppress(OmegaConfBaseException):  # of ${hydra:...}, which only Hydra itself can answer
            settings_of(command.settings, config)


def _composed(name: str, overrides: list[str], *, multirun: bool) -> DictConfig:
    """The config with its `hydra` node, as Hydra itself will compose it."""
    hydra_ = GlobalHydra.instance().hydra
    assert hydra_ is not None
    return hydra_.compose_config(
        name,
        overrides,
        RunMode.MULTIRUN if multirun else RunMode.RUN,
        from_shell=False,
        validate_sweep_overrides=not multirun,
    )


def _explain(settings: type, error: Exception, words: list[str]) -> str:
    """Hydra's message in one or two lines, with the nearest known key or option, or the type expected."""
    text = str(error.__cause__ or error)
    if isinstance(error.__cause__, ValidationError):
        answer = mistyped(error.__cause__, settings, words)
        if answer is not None:
            return answer
    if isinstance(error, OverrideParseException):
        reason = str(error).partition("\n")[0]
        return f"{error.override}: cannot be read ({reason}). Close brackets, braces and quotes"
    if text.startswith("Config group override must be"):
        return _no_option(words)
    if match := re.search(r"Key '([^']+)' (?:is )?not in '?([A-Za-z]+)", text):
        keys = _keys(_nested(settings).get(match[2], settings))
        path = re.search(r"full_key: (\S+)", text)
        full = path[1] if path else match[1]
        return f"unknown config key '{full}'{nearest(match[1], keys, full)}" + _list(keys)
    if match := re.search(r"Could not find '([^'/]+)/([^']+)'", text):
        options = sorted(path.stem for path in (config_dir("conf") / match[1]).glob("*.yaml"))
        word = f"{match[1]}={match[2]}"
        return f"{word} does not exist{nearest(match[2], options, word)}" + _list(options)
    if match := re.search(r"Could not override '([^']+)'", text):
        keys = _keys(settings)
        hint = nearest(match[1].split(".")[0], keys, match[1])
        return f"unknown config key '{match[1]}'{hint}" + _list(keys)
    lines = [line.strip() for line in text.split("Set the environment variable")[0].splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith("object_type="))


def _no_option(words: list[str]) -> str:
    """What to say of a number where the name of an option belongs."""
    home = config_dir("conf")
    numbers = [word for word in words if re.fullmatch(r"\w+=[-+.\d]+", word)]
    word = next((word for word in numbers if (home / word.partition("=")[0]).is_dir()), words[-1])
    group = word.partition("=")[0]
    return f"{word}: {group} is chosen by name." + _list(
        sorted(path.stem for path in (home / group).glob("*.yaml"))
    )


def _keys(settings: type) -> list[str]:
    return [item.name for item in fields(settings)]


def _nested(settings: type) -> dict[str, type]:
    """The dataclasses of settings inside settings, by their names."""
    inner = {without_none(hint)[0] for hint in get_type_hints(settings).values()} - {Component}
    return {kind.__name__: kind for kind in inner if isinstance(kind, type) and is_dataclass(kind)}


def _list(known: list[str]) -> str:
    return f" There are: {', '.join(dict.fromkeys(known))}"
