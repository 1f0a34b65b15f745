"""The data sets under a local root: what there is, which splits are evaluated, what identifies the content.

The layout, `<suffix>` being .jsonl, .jsonl.gz, .parquet or whatever else `embedtrain.files.rows` reads; a
split may also be a folder written by `datasets.save_to_disk`:

    sts/<name>/<split><suffix>               {"sentence1", "sentence2", "score"}
    pairs/<name>/<split><suffix>             {"sentence1", "sentence2", "label"}
    classification/<name>/<split><suffix>    {"text", "label"}
    clustering/<name>/<split><suffix>        {"text", "label"}
    bitext/<name>/<split><suffix>            {"sentence1", "sentence2"}
    summarization/<name>/<split><suffix>     {"text", "human_summaries", "machine_summaries", "relevance"}
    retrieval/<name>/corpus<suffix>          {"id", "title", "text"}
    retrieval/<name>/queries<suffix>         {"id", "text", "instruction"}
    retrieval/<name>/qrels<suffix>           {"query_id", "corpus_id", "score"}
    reranking/<name>/                        the same, and top_ranked<suffix> {"query_id", "corpus_ids"}
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from embedtrain.data.read.ranking import judged_splits, of_split, ranking_files
from embedtrain.files.rows import split_files
from embedtrain.types import InputError

RANKINGS = {
    "retrieval": ("corpus", "queries", "qrels"),
    "reranking": ("corpus", "queries", "qrels", "top_ranked"),
}
KINDS = ("sts", "pairs", "classification", "clustering", "bitext", "summarization", *RANKINGS)
PREFERRED = ("test", "dev", "val", "validation")  # of these the first that exists, where nothing is chosen


class LocalSet(NamedTuple):
    """One data set folder: `files` by split name (a ranking: corpus, queries, qrels, top_ranked)."""

    kind: str
    name: str
    files: dict[str, tuple[Path, ...]]

    @property
    def is_ranking(self) -> bool:
        """Whether it has a corpus and queries, or lacks them; a ranking may also be rows as of training."""
        of_rows = set(self.files) & {*PREFERRED, "train"} and not set(self.files) & {"corpus", "queries"}
        return self.kind in RANKINGS and not of_rows

    @property
    def path(self) -> str:
        """Where it is under the root, sts/stsbenchmark."""
        return f"{self.kind}/{self.name}"


def local_sets(root: Path) -> list[LocalSet]:
    """Every data set folder under the root, by kind and name; none is no error.

    Raises:
        InputError: the root is no folder, or a split has two files.
    """
    if not root.is_dir():
        raise InputError(
            f"data_root {root} is not a folder; it should hold {', '.join(f'{kind}/' for kind in KINDS)}"
        )
    folders = [(kind, folder) for kind in KINDS for folder in sorted((root / kind).glob("*/"))]
    return [LocalSet(kind, folder.name, _files(kind, folder)) for kind, folder in folders]


def choose_set(name: str, sets: Sequence[LocalSet], root: Path) -> LocalSet:
    """The set of this name or path.

    Raises:
        InputError: none (with the nearest names), or several kinds have it.
    """
    found = [local for local in sets if name in (local.path, local.name)]
    if not found:
        names = [known for local in sets for known in (local.path, local.name)]
        raise InputError(f"no local task {name!r} under {root}{nearest_names(name, names)}")
    if len(found) > 1:
        raise InputError(f"{name!r} is {' and '.join(local.path for local in found)}; say which")
    return found[0]


def evaluated_splits(local: LocalSet, splits: Sequence[str] | None) -> list[str]:
    """The splits to evaluate: those asked for, else the first there is of `PREFERRED`; a ranking has one.

    Raises:
        InputError: a split, or what its kind needs beside it, is not there.
    """
    there = ", ".join(local.files) or "no file"
    if local.is_ranking:
        judged = judged_splits(local.files)
        there_now = {name.split("/")[0] for name in local.files}
        missing = [file for file in RANKINGS[local.kind] if file not in there_now]
        if missing:
            raise InputError(f"{local.path} lacks {', '.join(missing)}; it has {there}")
        if not judged:
            return ["test"]
        absent = [split for split in splits or () if split not in judged]
        if absent:
            raise InputError(f"{local.path} has no judgements of {', '.join(absent)}; it has {there}")
        return list(splits or [next((split for split in PREFERRED if split in judged), judged[0])])[:1]
    if local.kind == "classification" and "train" not in local.files:
        raise InputError(f"{local.path} has no train file to learn the labels from; it has {there}")
    if splits is not None:
        missing = [split for split in splits if split not in local.files]
        if missing:
            raise InputError(f"{local.path} has no split {', '.join(missing)}; it has {there}")
        return list(splits)[: 1 if local.kind in RANKINGS else None]
    first = next((split for split in PREFERRED if split in local.files), None)
    if first is None and local.kind != "classification":
        raise InputError(f"{local.path} has no split to evaluate ({', '.join(PREFERRED)}); it has {there}")
    return [first or "test"]


def used_files(local: LocalSet, evaluated: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """The files that an evaluation of these splits reads."""
    if local.is_ranking:
        parts = of_split(local.files, evaluated[0], (), local.path)
        return {name: paths for name, paths in parts.items() if name in RANKINGS[local.kind]}
    wanted = set(evaluated)
    if local.kind == "classification":
        wanted.add("train")
    return {split: paths for split, paths in local.files.items() if split in wanted}


def content_hash(files: Mapping[str, Sequence[Path]]) -> str:
    """Names the content of the files: changed data are another revision, whose old scores are not served."""
    digest = hashlib.sha256()
    for split in sorted(files):
        for path in files[split]:
            for part in sorted(path.rglob("*.arrow")) if path.is_dir() else [path]:
                digest.update(f"{split}\n{part.stat().st_size}\n".encode())
                with part.open("rb") as file:
                    while piece := file.read(1 << 20):
                        digest.update(piece)
    return digest.hexdigest()[:40]


def nearest_names(name: str, names: Iterable[str]) -> str:
    """; nearest are a, b: letter case does not count."""
    by_lower = {known.lower(): known for known in names}
    close = [by_lower[lower] for lower in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    return f"; nearest: {', '.join(close)}" if close else f"; there are {len(by_lower)} tasks, none like it"


def _files(kind: str, folder: Path) -> dict[str, tuple[Path, ...]]:
    """Files by split, of a ranking by part; those in data/ where the folder has none itself."""
    if kind in RANKINGS and (parts := ranking_files(folder)):
        return parts
    return split_files(folder) or (split_files(folder / "data") if (folder / "data").is_dir() else {})
