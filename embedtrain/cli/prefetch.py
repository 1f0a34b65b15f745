"""`embedtrain-evaluate prefetch=true`: fills data_root where there is internet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.settings.commands import EvaluateSettings
from embedtrain.types import InputError

if TYPE_CHECKING:
    from embedtrain.evaluation.catalogue.prefetch import Wanted

MODELS = "models"  # the folder of fetched models under the data root


def prefetch_all(settings: EvaluateSettings) -> None:
    """Fetches the data of the tasks, and the model if it is a hub name; prints the repositories.

    Raises:
        InputError: no data_root, an unknown task, or, once all else is fetched, what could not be had.
    """
    from embedtrain.console import Progress
    from embedtrain.evaluation.catalogue.official.manifest import NAME
    from embedtrain.evaluation.catalogue.prefetch import prefetch, wanted_data
    from embedtrain.evaluation.catalogue.tasks import find_tasks

    if settings.data_root is None:
        raise InputError("prefetch=true needs data_root=DIR, the folder to fill")
    root = Path(settings.data_root).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    tasks = find_tasks(settings.tasks, root, settings.languages)
    wanted = [*wanted_data(tasks), *_wanted_model(settings.model)]
    with Progress() as progress:
        fetched = prefetch(wanted, root, print, progress, verify=settings.verify)
    size = sum(repo.size for repo in fetched.repos)
    print(f"{len(fetched.repos)} of {len(wanted)} repositories, {size:,} bytes; every file: {root / NAME}")
    if fetched.failures:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in fetched.failures.items())
        raise InputError(
            f"{len(fetched.failures)} of {len(wanted)} repositories could not be fetched; the same command "
            f"tries them again:{listed}"
        )


def prefetched_model(name: str, data_root: str | None) -> str:
    """The folder that a prefetch put this hub model in, or the name as it is."""
    if data_root is None or Path(name).exists():
        return name
    folder = Path(data_root).expanduser() / MODELS / name
    return str(folder) if folder.is_dir() else name


def _wanted_model(name: str | None) -> list[Wanted]:
    """The repository of a hub model with its safetensors, or other weights where it has none."""
    import huggingface_hub

    from embedtrain.evaluation.catalogue.prefetch import Wanted
    from embedtrain.model.locate import DESCRIPTION

    if name is None or Path(name).expanduser().exists():
        return []
    try:
        info = huggingface_hub.model_info(name)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise InputError(
            f"model={name} is neither a folder here nor to be had from the hub "
            f"({type(error).__name__}: {reason})"
        ) from error
    files = [file.rfilename for file in info.siblings or []]
    weights = (
        "*.safetensors" if any(file.endswith(".safetensors") for file in files) else "pytorch_model*.bin"
    )
    patterns = (*DESCRIPTION, weights)
    return [Wanted(name, "model", str(info.sha), f"{MODELS}/{name}", patterns=patterns)]
