"""From the command line to the settings of a command: recipes, nearest names, errors in one line."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from embedtrain.cli.commands import COMMANDS, Command
from embedtrain.cli.line.completion import recipes_for, with_own_folder
from embedtrain.cli.line.composing import check, check_typed, parsed
from embedtrain.cli.line.quoting import quoted
from embedtrain.cli.line.wandb_environment import with_wandb
from embedtrain.cli.process.interruption import INTERRUPTION
from embedtrain.cli.process.logs import set_up_logs
from embedtrain.cli.process.started import check_processes, requires_whole_weights
from embedtrain.escaping import terminal
from embedtrain.files.atomic import plain_error
from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.compose import effective, schema, settings_of
from embedtrain.settings.environment import REFUSED
from embedtrain.settings.names import nearest
from embedtrain.settings.places import config_dir, recipe_names
from embedtrain.types import InputError

HYDRA_ONLY = {"--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}


def launch(name: str, command: Command) -> None:
    """Run a command with the settings that the command line describes, or print them for `show=true`.

    `recipe=NAME` takes recipes/NAME.yaml as the primary config; everything else is ordinary Hydra. A job of a
    sweep gives its number (see `optimized_metric`) to the sweeper.
    """
    # Threads that wait by spinning make training several times slower whenever another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _store_schema(command)
    if (recipes := recipes_for(sys.argv[1:], os.environ)) is not None:
        print("\n".join(recipes))
        return
    sys.argv[1:], line = with_own_folder(sys.argv[1:], os.environ)
    if line is not None:
        os.environ["COMP_LINE"] = line
    try:
        words, show = _with_recipe(_without_show(sys.argv[1:])), "show=true" in sys.argv[1:]
        sys.argv[1:] = words = _quoted(words, command.settings)
        if not HYDRA_ONLY.intersection(words):
            check(command, words)
    except InputError as error:
        fail(error)

    def run(config: DictConfig) -> float | None:
        with _errors_in_one_line(config):
            check_typed(config, words)  # again: a sweeper may take values from elsewhere
            settings: Any = settings_of(command.settings, config)
            if show:
                print(yaml.safe_dump(effective(settings), sort_keys=False, allow_unicode=True), end="")
                return None
            if isinstance(settings, TrainSettings):
                settings = with_wandb(settings, os.environ, HydraConfig.get().overrides.task)
                _check_surroundings(settings)
            task = importlib.import_module(f"embedtrain.cli.{name}").run
            set_up_logs(models=command.models)
            from embedtrain.console import signs_of_life  # with Lightning, where models run

            with INTERRUPTION.working(), signs_of_life():
                result: float | None = task(settings)
        return result

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
    requires_whole_weights(settings)
    if settings.data.num_workers:  # each worker would start a thread a core, and warn
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _quoted(words: list[str], settings: type) -> list[str]:
    """The words, flags first as Hydra wants them, and quotes around what it would misread."""
    given = parsed(words)
    flags = [word for word in words if word not in given.overrides]
    return [*flags, *quoted(given.overrides, settings, sweep=given.multirun)]


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
    except (OSError, MemoryError, RecursionError) as error:
        places = (config.get(key) for key in ("out", "output", "output_root"))
        said = plain_error(error, next(filter(None, places), ""))
        fail(InputError(f"{said} (HYDRA_FULL_ERROR=1 shows where)"), error)


def _launcher() -> str | None:
    """What starts the jobs of this sweep: its class and option; None outside one."""
    settings = HydraConfig.get()
    if settings.mode != RunMode.MULTIRUN:
        return None
    return f"{settings.launcher._target_} {settings.runtime.choices['hydra/launcher']}"


def fail(error: InputError, cause: BaseException | None = None) -> NoReturn:
    """Print the error alone and leave with status 1; before it the traceback, for HYDRA_FULL_ERROR=1."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(cause or error)
    print(terminal(f"error: {error}"), file=sys.stderr)
    sys.exit(1)


def _with_recipe(words: list[str]) -> list[str]:
    """`recipe=NAME` as Hydra's primary config recipes/NAME.yaml, which finds its parts in conf/."""
    names = [word.partition("=")[2] for word in words if word.startswith("recipe=")]
    if not names:
        return words
    name, known = names[-1].removesuffix(".yaml"), recipe_names()
    if name not in known:
        raise InputError(
            f"recipe '{name}' does not exist{nearest(name, known)} There are: {', '.join(known)}"
        )
    rest = [word for word in words if not word.startswith("recipe=")]
    parts = f"hydra.searchpath=[file://{config_dir('conf')}]"
    return ["--config-path", str(config_dir("recipes")), "--config-name", name, parts, *rest]
