"""wandb's own variables where neither the command line nor a recipe says something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from embedtrain.settings.commands import TrainSettings
from embedtrain.settings.options import option

VARIABLES = {"project": "WANDB_PROJECT", "name": "WANDB_NAME"}
MODES: dict[str, dict[str, object]] = {
    "online": {"offline": False},
    "shared": {"offline": False, "mode": "shared"},
    "offline": {"offline": True},
    "dryrun": {"offline": True},
    "disabled": {"offline": False, "mode": "disabled"},
}


def with_wandb(
    settings: TrainSettings, environment: Mapping[str, str], words: Sequence[str]
) -> TrainSettings:
    """The settings with WANDB_PROJECT, WANDB_NAME and WANDB_MODE in their wandb logger.

    Args:
        settings: of the command.
        environment: of this process.
        words: overrides of the command line, which win, as does what a recipe says.
    """
    logger, own = settings.logger, option("logger", "wandb")
    if logger is None or logger.target != own["_target_"]:
        return settings
    own["name"] = settings.name
    typed = {word.lstrip("+").partition("=")[0] for word in words}
    free = {
        key for key in (*VARIABLES, "offline")
        if f"logger.{key}" not in typed and logger.settings.get(key) == own[key]
    }  # fmt: skip
    changes: dict[str, object] = {
        key: environment[name] for key, name in VARIABLES.items() if key in free and environment.get(name)
    }
    if "offline" in free and "mode" not in logger.settings:
        changes |= MODES.get(environment.get("WANDB_MODE", ""), {})
    return replace(settings, logger=logger.changed(**changes))
