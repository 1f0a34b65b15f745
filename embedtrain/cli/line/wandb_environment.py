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

    A trial of a sweep (WANDB_SWEEP_ID) bears WANDB_RUN_ID in its name, so that it has a folder of its own.

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
    sweep, trial = environment.get("WANDB_SWEEP_ID"), environment.get("WANDB_RUN_ID")
    name = f"{settings.name}-{trial}" if sweep and trial else settings.name  # else trials share a folder
    if name != settings.name and "name" in free and "name" not in changes:
        changes["name"] = name
    return replace(settings, name=name, logger=logger.changed(**changes))
