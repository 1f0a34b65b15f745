"""`embedtrain-evaluate offline=true`: the internet is asked nothing, and what is missing is named at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.cli.prefetch import prefetched_model
from embedtrain.run.models import model_folder
from embedtrain.settings.commands import EvaluateSettings
from embedtrain.types import InputError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

SWITCHES = {"huggingface_hub.constants": ("HF_HUB_OFFLINE",), "datasets.config": ("HF_HUB_OFFLINE",)}


def go_offline() -> None:
    """Sets the hub's libraries to offline, those that have read their environment already included."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    for module, names in SWITCHES.items():
        for name in names if module in sys.modules else ():
            setattr(sys.modules[module], name, True)


def offline_tasks(settings: EvaluateSettings) -> list[AbsTask]:
    """The tasks of `embedtrain-evaluate`, all of whose data are on this machine, as is the model.

    Raises:
        InputError: naming what is missing, and the command that fetches it.
    """
    from embedtrain.evaluation.catalogue.offline import settle_offline
    from embedtrain.evaluation.catalogue.tasks import find_tasks
    from embedtrain.model.locate import locate

    root = None if settings.data_root is None else Path(settings.data_root).expanduser()
    lacking = []
    try:
        locate(model_folder(prefetched_model(str(settings.model), settings.data_root)))
    except InputError as error:
        lacking.append(
            f"offline: {error}; `prefetch=true model={settings.model}` fetches a hub model to data_root"
        )
    try:
        tasks = settle_offline(
            find_tasks(settings.tasks, root, settings.languages), root, verify=settings.verify
        )
    except InputError as error:
        lacking.append(str(error))
    if lacking:
        raise InputError("\n".join(lacking))
    return tasks
