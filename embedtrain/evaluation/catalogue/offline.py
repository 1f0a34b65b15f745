"""Proves, before anything is encoded, that an evaluation needs nothing from the internet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.evaluation.catalogue.official.manifest import Repo, faults, read_manifest
from embedtrain.evaluation.catalogue.official.mirror import from_folder
from embedtrain.evaluation.catalogue.sources import Source, source_of
from embedtrain.evaluation.catalogue.tasks import load
from embedtrain.types import InputError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

SHOWN = 5


def settle_offline(tasks: Sequence[AbsTask], root: Path | None, *, verify: bool = False) -> list[AbsTask]:
    """The tasks, each with its data on this machine; those of the hub's cache read from there.

    Files that the root's manifest names must be there with its sizes. `verify` also compares their hashes
    and loads the data of every task once.

    Raises:
        InputError: names all data that are missing or damaged, and the command that fetches them.
    """
    manifest = {} if root is None else read_manifest(root)
    settled, missing, damaged = [], [], []
    for task in tasks:
        source = source_of(task)
        if source.how == "hub":
            found = _from_caches(task, source)
            missing += [] if found else [task]
            settled += [found] if found else []
            continue
        if source.folder is not None and root is not None:
            repo = manifest.get(source.folder.relative_to(root).as_posix())
            if repo and (wrong := faults(root, repo, verify=verify)):
                damaged.append((task, repo, wrong))
        settled.append(task)
    if missing or damaged:
        raise InputError(_message(missing, damaged, len(tasks), root))
    if verify:
        for task in settled:
            load(task)
            task.unload_data()
    return settled


def _from_caches(task: AbsTask, source: Source) -> AbsTask | None:
    """The task as the hub's cache or that of `datasets` can serve it, at its very revision; else None."""
    import datasets
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # `datasets` itself does not look into the hub's cache when it is offline
        snapshot = huggingface_hub.snapshot_download(
            source.repo, repo_type="dataset", revision=source.revision, local_files_only=True
        )
        return from_folder(task, Path(snapshot))
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass
    # offline, `datasets` serves whichever revision of a repository it prepared last, so only one may be there
    prepared = Path(datasets.config.HF_DATASETS_CACHE) / _prepared_name(source.repo)
    revisions = {folder.name for folder in prepared.glob("*/*/*") if folder.is_dir()}
    return task if revisions == {source.revision} else None


def _prepared_name(repo: str) -> str:
    """The folder that `datasets` keeps a repository in: org___snake_case."""
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = repo.rpartition("/")
    return "___".join([owner] * bool(owner) + [camelcase_to_snakecase(name)])


def _message(
    missing: Sequence[AbsTask],
    damaged: Sequence[tuple[AbsTask, Repo, dict[str, str]]],
    count: int,
    root: Path | None,
) -> str:
    lines = []
    if missing:
        sources = [(task, source_of(task)) for task in missing]
        named = [f"{task.metadata.name} ({source.repo}@{source.revision})" for task, source in sources]
        lines.append(f"offline: {len(missing)} of {count} tasks have no data here: {', '.join(named)}")
    for task, repo, wrong in damaged:
        listed = ", ".join(f"{name} {what}" for name, what in list(wrong.items())[:SHOWN])
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        lines.append(f"offline: {task.metadata.name}: in {repo.folder}, {listed}{more}")
    names = dict.fromkeys(task.metadata.name for task in [*missing, *(task for task, _, _ in damaged)])
    lines.append(
        f"where there is internet, run: embedtrain-evaluate prefetch=true 'tasks=[{','.join(names)}]' "
        f"data_root={root or 'DIR'}{'' if root else ', and give data_root=DIR here'}"
    )
    return "\n".join(lines)
