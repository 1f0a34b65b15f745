"""From the command line to a checked plain config: recipes, nearest names, errors in one line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ValidationError
from omegaconf.errors import OmegaConfBaseException

from embedtrain.cli.mistyped import mistyped
from embedtrain.cli.processes import check_processes, requires_no_overwrite, requires_whole_weights
from embedtrain.files.atomic import is_disk_full
from embedtrain.settings.build import config_dir, plain, schema
from embedtrain.settings.names import nearest
from embedtrain.settings.schemas import (
    CompareConfig,
    EvaluateConfig,
    EvaluationConfig,
    ExportConfig,
    MineConfig,
    RunConfig,
)
from embedtrain.types import InputError

SCHEMAS = {
    "train": RunConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "mine": MineConfig,
    "compare": CompareConfig,
}
NODES = {
    "train": "run_schema",
    "evaluate": "evaluate_schema",
    "export": "export_schema",
    "mine": "mine_schema",
    "compare": "compare_schema",
}
AGAIN = "free some space and run the same command again, which keeps what was finished"
HYDRA_ONLY = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}


def launch(command: str, task: Callable[[dict[str, Any]], None]) -> None:
    """Run `task` with the plain config that the command line describes.

    `recipe=NAME` takes recipes/NAME.yaml as the primary config; everything else is ordinary Hydra.
    """
    # Threads that wait by spinning make training several times slower whenever another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name, config_class in SCHEMAS.items():
        ConfigStore.instance().store(name=NODES[name], node=schema(config_class))
    try:
        sys.argv[1:] = _with_recipe(sys.argv[1:])
        if not HYDRA_ONLY.intersection(sys.argv):
            _check(command, sys.argv[1:])
    except InputError as error:
        fail(error)

    def run(config: DictConfig) -> None:
        from embedtrain.cli.logs import set_up_logs  # imports what --help need not wait for

        settings: dict[str, Any] = {}
        with _errors_in_one_line(settings):
            set_up_logs()
            settings |= plain(config)
            if command == "train":
                check_processes(settings, os.environ, launcher=_launcher())
                requires_no_overwrite(settings, os.environ)
                requires_whole_weights(settings)
                if settings["data"].get("num_workers"):  # each worker would start a thread a core, and warn
                    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            task(settings)

    folder = str(config_dir("conf"))
    hydra.main(version_base="1.3", config_path=folder, config_name=command)(run)()


@contextmanager
def _errors_in_one_line(settings: dict[str, Any]) -> Iterator[None]:
    """Say what a user can mend without a traceback, and leave with status 1."""
    try:
        yield
    except InputError as error:
        fail(error)
    except OSError as error:
        if not is_disk_full(error):
            raise
        places = (settings.get(key) for key in ("out", "output", "output_root"))
        fail(InputError(f"{error.filename or next(filter(None, places), '')}: the disk is full; {AGAIN}"))
    except KeyboardInterrupt:
        fail(InputError("stopped; the same command continues from the last checkpoint"))


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


def _check(command: str, arguments: list[str]) -> None:
    """Compose the config once before Hydra does, to answer mistakes with the nearest name.

    Raises:
        InputError: naming the key or option, and the nearest existing one.
    """
    parser = hydra._internal.utils.get_args_parser()
    parsed = parser.parse_args(arguments)
    if parsed.multirun:  # each job is composed by itself, and checked then
        return
    home, overrides = config_dir("conf"), list(parsed.overrides)
    if parsed.config_dir:
        overrides.append(f"hydra.searchpath=[file://{home}]")
        home = Path(parsed.config_dir).resolve()
    with hydra.initialize_config_dir(str(home), version_base="1.3", job_name=command):
        try:
            hydra.compose(parsed.config_name or command, overrides=overrides)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise InputError(_explain(command, error, parsed.overrides)) from error


def _explain(command: str, error: Exception, words: list[str]) -> str:
    """Hydra's message in one or two lines, with the nearest known key or option, or the type expected."""
    text = str(error.__cause__ or error)
    if isinstance(error.__cause__, ValidationError):
        told = mistyped(error.__cause__, SCHEMAS[command], words)
        if told is not None:
            return told
    if isinstance(error, OverrideParseException):
        reason = str(error).partition("\n")[0]
        return f"{error.override}: cannot be read ({reason}). Close brackets, braces and quotes"
    if text.startswith("Config group override must be"):
        return _no_option(words)
    if found := re.search(r"Key '([^']+)' (?:is )?not in '?([A-Za-z]+)", text):
        strict = (*SCHEMAS.values(), EvaluationConfig)
        keys = [key for config in strict if config.__name__ == found[2] for key in _keys(config)]
        keys = keys or list(_keys(SCHEMAS[command]))
        path = re.search(r"full_key: (\S+)", text)
        full = path[1] if path else found[1]
        return f"unknown config key '{full}'{nearest(found[1], keys, full)}" + _list(keys)
    if found := re.search(r"Could not find '([^'/]+)/([^']+)'", text):
        options = sorted(path.stem for path in (config_dir("conf") / found[1]).glob("*.yaml"))
        word = f"{found[1]}={found[2]}"
        return f"{word} does not exist{nearest(found[2], options, word)}" + _list(options)
    if found := re.search(r"Could not override '([^']+)'", text):
        keys = _keys(SCHEMAS[command])
        hint = nearest(found[1].split(".")[0], keys, found[1])
        return f"unknown config key '{found[1]}'{hint}" + _list(keys)
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


def _keys(config_class: type) -> list[str]:
    return list(config_class.__dataclass_fields__)  # type: ignore[attr-defined]


def _list(known: list[str]) -> str:
    return f" There are: {', '.join(dict.fromkeys(known))}"
