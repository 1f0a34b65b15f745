"""What to evaluate on: local data sets and official mteb tasks, by name.

Local layout under a root, `<suffix>` being .jsonl, .jsonl.gz, .parquet or whatever else `embedtrain.rows`
reads; a split may also be a folder written by `datasets.save_to_disk`:

    sts/<name>/<split><suffix>               {"sentence1", "sentence2", "score"}
    pairs/<name>/<split><suffix>             {"sentence1", "sentence2", "label"}
    classification/<name>/<split><suffix>    {"text", "label"}
    retrieval/<name>/corpus<suffix>          {"id", "title", "text"}
    retrieval/<name>/queries<suffix>         {"id", "text"}
    retrieval/<name>/qrels<suffix>           {"query_id", "corpus_id", "score"}

mteb is imported only when a task is built.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from embedtrain.evaluate.quiet import kept_random_state
from embedtrain.rows import SUFFIXES
from embedtrain.types import InputError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

logger = logging.getLogger(__name__)

KINDS = ("sts", "pairs", "classification", "retrieval")
PREFERRED = (
    "test",
    "dev",
    "val",
    "validation",
)  # without a choice of splits, the first that exists is evaluated
RETRIEVAL_FILES = ("corpus", "queries", "qrels")


class LocalSet(NamedTuple):
    """One data set folder: `files` by split name (retrieval: corpus, queries, qrels)."""

    kind: str
    name: str
    files: dict[str, Path]

    @property
    def path(self) -> str:
        """Where it is under the root, sts/stsbenchmark."""
        return f"{self.kind}/{self.name}"


def find_tasks(names: Sequence[str], data_root: Path | None = None) -> list[AbsTask]:
    """The tasks of these names: "local" is every local set, "sts/mine" or "mine" one, others are mteb's own.

    Raises:
        InputError: no such task (with the nearest names), or "local" without a data root.
    """
    if not names:
        raise InputError("no task given; give task names, or tasks=local with data_root=DIR")
    sets = _local_sets(data_root) if data_root is not None else []
    known = {item.path for item in sets} | {item.name for item in sets}
    tasks: list[AbsTask] = []
    for name in dict.fromkeys(names):
        if name == "local" or name in known:
            if data_root is None:
                raise InputError("tasks=local needs data_root=DIR, the folder of the local data sets")
            tasks += local_tasks(data_root, None if name == "local" else [name])
        else:
            tasks += _official(name, known)
    return list({task.metadata.name: task for task in tasks}.values())


def local_tasks(
    root: Path, names: Sequence[str] | None = None, splits: Sequence[str] | None = None
) -> list[AbsTask]:
    """The local data sets under `root` as mteb tasks, all or those named; rows are read when evaluated.

    `splits` are evaluated, by default the first there is of test, dev, val, validation; classification
    learns from train, and where train is all there is, a seeded fifth of each label is held out of it.
    Retrieval has one split. Without `names`, a folder that cannot be evaluated is left out with a warning.

    Raises:
        InputError: root missing or empty, unknown name (with the nearest), nothing to evaluate in a named
        set.
    """
    sets = _local_sets(Path(root))
    if names is not None:
        sets = [_choose(name, sets, root) for name in names]
    shared = Counter(item.name for item in _local_sets(Path(root)))
    tasks = []
    for item in sets:
        try:
            evaluated = _evaluated_splits(item, splits)
        except InputError as error:
            if names is not None:
                raise
            logger.warning("left out: %s", error)
            continue
        with kept_random_state():
            tasks.append(_task(item, evaluated, unique=shared[item.name] == 1))
    if not tasks:
        raise InputError(
            f"{root}: none of the data sets can be evaluated: {', '.join(item.path for item in sets)}"
        )
    return tasks


def official_tasks(names: Sequence[str]) -> list[AbsTask]:
    """Mteb's own tasks of these names; their data are fetched, or read from the cache, when evaluated.

    Raises:
        InputError: unknown name, with the nearest names.
    """
    return [task for name in names for task in _official(name, ())]


def load(task: AbsTask) -> None:
    """Loads a task's data.

    Raises:
        InputError: a malformed local row, or official data that are neither on this machine nor reachable.
    """
    try:
        task.load_data()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"task {task.metadata.name}: its data {task.metadata.dataset['path']!r} cannot be loaded "
            f"({type(error).__name__}: {error}); load them once where there is internet, or evaluate local "
            "data with data_root=DIR"
        ) from error


def _official(name: str, local_names: Iterable[str]) -> list[AbsTask]:
    with kept_random_state():
        import mteb
        from mteb.get_tasks import _TASKS_REGISTRY

        from embedtrain.evaluate.plain_labels import with_plain_labels

        if name not in _TASKS_REGISTRY:
            raise InputError(f"no task {name!r}{_nearest(name, [*local_names, *_TASKS_REGISTRY])}")
        return [with_plain_labels(task) for task in mteb.get_tasks(tasks=[name])]


def _task(item: LocalSet, evaluated: list[str], *, unique: bool) -> AbsTask:
    from embedtrain.evaluate.local import build

    wanted = {"retrieval": set(RETRIEVAL_FILES), "classification": {"train", *evaluated}}.get(
        item.kind, set(evaluated)
    )
    files = {split: path for split, path in item.files.items() if split in wanted}
    name = item.name if unique else f"{item.kind}_{item.name}"
    return build(item.kind, name, files, evaluated, content_hash(files))


def content_hash(files: Mapping[str, Path]) -> str:
    """Identifies what the files say: changed data are another revision, whose old scores are never served."""
    digest = hashlib.sha256()
    for split in sorted(files):
        path = files[split]
        for part in sorted(path.rglob("*.arrow")) if path.is_dir() else [path]:
            digest.update(f"{split}\n{part.stat().st_size}\n".encode())
            with part.open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
    return digest.hexdigest()[:40]


def _local_sets(root: Path) -> list[LocalSet]:
    if not root.is_dir():
        raise InputError(
            f"data_root {root} is not a folder; it should hold {', '.join(f'{kind}/' for kind in KINDS)}"
        )
    folders = [(kind, folder) for kind in KINDS for folder in sorted((root / kind).glob("*/"))]
    sets = [LocalSet(kind, folder.name, _files(folder)) for kind, folder in folders]
    if not sets:
        raise InputError(
            f"data_root {root} has no data set such as sts/mine/test.jsonl or retrieval/mine/corpus.jsonl"
        )
    return sets


def _files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")
        if not suffix and not (path / "state.json").is_file():
            continue
        split = path.name.removesuffix(suffix)
        if split in files:
            raise InputError(
                f"{folder}: {files[split].name} and {path.name} are one split twice; keep one of them"
            )
        files[split] = path
    return files


def _choose(name: str, sets: Sequence[LocalSet], root: Path) -> LocalSet:
    found = [item for item in sets if name in (item.path, item.name)]
    if not found:
        names = [known for item in sets for known in (item.path, item.name)]
        raise InputError(f"no local task {name!r} under {root}{_nearest(name, names)}")
    if len(found) > 1:
        raise InputError(f"{name!r} is {' and '.join(item.path for item in found)}; say which")
    return found[0]


def _evaluated_splits(item: LocalSet, splits: Sequence[str] | None) -> list[str]:
    there = ", ".join(item.files) or "no file"
    if item.kind == "retrieval":
        missing = [file for file in RETRIEVAL_FILES if file not in item.files]
        if missing:
            raise InputError(f"{item.path} lacks {', '.join(missing)}; it has {there}")
        return ["test"]
    if item.kind == "classification" and "train" not in item.files:
        raise InputError(f"{item.path} has no train file to learn the labels from; it has {there}")
    if splits is not None:
        missing = [split for split in splits if split not in item.files]
        if missing:
            raise InputError(f"{item.path} has no split {', '.join(missing)}; it has {there}")
        return list(splits)
    first = next((split for split in PREFERRED if split in item.files), None)
    if first is None and item.kind != "classification":
        raise InputError(f"{item.path} has no split to evaluate ({', '.join(PREFERRED)}); it has {there}")
    return [first or "test"]


def _nearest(name: str, names: Iterable[str]) -> str:
    """; nearest are a, b: letter case does not count."""
    by_lower = {known.lower(): known for known in names}
    close = [by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    return f"; nearest: {', '.join(close)}" if close else f"; there are {len(by_lower)} tasks, none like it"
