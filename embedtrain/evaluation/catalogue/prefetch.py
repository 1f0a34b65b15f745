"""Fills a folder with the data of official tasks, on a machine with internet, for one without.

Each dataset repository lies at the revision that mteb pins in `<root>/<org>/<name>@<revision>`. A folder of
that name is whole: fetching goes on in `<...>.partial`, and continues there when it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.filesize import decimal

from embedtrain.evaluation.catalogue.official.manifest import (
    Repo,
    faults,
    files_of,
    read_manifest,
    write_manifest,
)
from embedtrain.evaluation.catalogue.sources import source_of
from embedtrain.files import owned
from embedtrain.files.atomic import is_disk_full
from embedtrain.types import InputError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


class Wanted(NamedTuple):
    """A repository to fetch, and the tasks that need it; `patterns` None for every file."""

    repo: str
    kind: str  # dataset or model
    revision: str
    folder: str  # under the root
    tasks: tuple[str, ...] = ()
    patterns: tuple[str, ...] | None = None


class Fetched(NamedTuple):
    """What a prefetch has and lacks: `failures` by repository, each with its reason."""

    repos: tuple[Repo, ...]
    failures: dict[str, str]


def wanted_data(tasks: Sequence[AbsTask]) -> list[Wanted]:
    """The dataset repositories of official tasks, each once; one's own rows need none."""
    by_address: dict[tuple[str, str], list[str]] = {}
    for task in tasks:
        source = source_of(task)
        if source.repo:
            by_address.setdefault((source.repo, source.revision), []).append(task.metadata.name)
    return [
        Wanted(repo, "dataset", revision, f"{repo}@{revision}", tuple(names))
        for (repo, revision), names in by_address.items()
    ]


def prefetch(
    wanted: Sequence[Wanted],
    root: Path,
    report: Callable[[str], None],
    progress: Callable[[str, int, int, str], object] = lambda *_: None,
    *,
    verify: bool = False,
) -> Fetched:
    """Fetches what the root does not yet hold whole, and notes all of it in manifest.json.

    A repository that cannot be fetched is reported and the rest follow.

    Args:
        wanted: the repositories.
        root: the folder to fill.
        report: gets a line per repository.
        progress: gets a name, the repositories done, how many there are, and the one being fetched.
        verify: also read what is there already, and fetch again what differs from the manifest.

    Raises:
        InputError: the disk is full, or the manifest there is damaged.
    """
    root.mkdir(parents=True, exist_ok=True)
    known = read_manifest(root)
    done, failures = [], {}
    for position, want in enumerate(wanted, start=1):
        where = f"[{position}/{len(wanted)}] {want.repo}@{want.revision[:12]}"
        repo = _present(root, known.get(want.folder), want, verify=verify)
        if repo is None:
            progress("fetching", position - 1, len(wanted), want.repo)
            try:
                repo = _fetch(root, want)
            except Exception as error:
                if is_disk_full(error):
                    raise InputError(
                        f"{root}: the disk is full while fetching {want.repo}; make room and run this again, "
                        "it continues where it stopped"
                    ) from error
                reason = next(iter(str(error).strip().splitlines()), "no reason given")
                failures[want.repo] = f"{type(error).__name__}: {reason}"
                report(f"{where}: failed, {failures[want.repo]}")
                continue
        report(f"{where}: {len(repo.files)} files, {decimal(repo.size)}, sha256 {repo.sha256[:12]}")
        known[want.folder] = repo
        done.append(repo)
        write_manifest(root, known.values())
    return Fetched(tuple(done), failures)


def _present(root: Path, repo: Repo | None, want: Wanted, *, verify: bool) -> Repo | None:
    """The repository as the manifest has it if it is whole; files that are not are removed."""
    if repo is None:
        return None
    damaged = faults(root, repo, verify=verify)
    if not damaged:
        return repo._replace(tasks=tuple(dict.fromkeys((*repo.tasks, *want.tasks))))
    for name in damaged:
        owned.remove_file(root / repo.folder / name, root / repo.folder)
    return None


def _fetch(root: Path, want: Wanted) -> Repo:
    import huggingface_hub

    folder = root / want.folder
    partial = folder.with_name(f"{folder.name}.partial")
    if folder.is_dir() and not partial.exists():
        owned.rename(folder, partial)
    huggingface_hub.snapshot_download(
        want.repo,
        repo_type=want.kind,
        revision=want.revision,
        local_dir=partial,
        allow_patterns=None if want.patterns is None else list(want.patterns),
    )
    files = files_of(partial)
    if not files:
        raise InputError(f"{want.repo} at {want.revision} has no file")
    owned.rename(partial, folder)
    return Repo(want.repo, want.kind, want.revision, want.folder, want.tasks, files)
