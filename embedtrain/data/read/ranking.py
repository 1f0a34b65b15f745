"""Which files of a folder are a ranking: corpus, queries and judgements, ours or as others lay them out.

corpus.jsonl, queries.jsonl, qrels.jsonl                       ours
corpus.jsonl, queries.jsonl, qrels/test.tsv                    BEIR
corpus/, queries/, default/ or qrels/ or data/ of parquet files    a hub repository
one `DatasetDict` of corpus, queries and judgements by split
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from embedtrain.data.read.bad_rows import usable
from embedtrain.data.read.retrieval import DOCUMENT, QUERY, ById, Judgements
from embedtrain.files.records import MAX_LINE, Raw
from embedtrain.files.rows import SPLITS, nearest, raw_rows, split_files
from embedtrain.types import InputError

Parts = Mapping[str, Sequence[Path]]  # corpus, queries, top_ranked; qrels, or qrels/SPLIT of each split
WHOLE = ("corpus", "queries", "top_ranked")
JUDGED = ("qrels", "default", "relevant_docs", "data")  # folders with a file of judgements a split
QRELS = "qrels/"


def ranking_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each part; {} where the folder has no corpus or no queries."""
    top = split_files(folder)
    if (
        "corpus" not in top
        and (folder / "data").is_dir()
        and "corpus" in (below := split_files(folder / "data"))
    ):
        top = below
    found: dict[str, tuple[Path, ...]] = {}
    for part in WHOLE:
        files = top.get(part) or _below(folder / part).get(part) or _all(_below(folder / part))
        if files:
            found[part] = tuple(files)
    if not {"corpus", "queries"} <= found.keys():
        return {}
    if "qrels" in top:
        return {**found, "qrels": top["qrels"]}
    judged = {name: files for name, files in top.items() if name in SPLITS}
    for name in JUDGED:
        judged = judged or {
            split: files for split, files in _below(folder / name).items() if split not in WHOLE
        }
    return {**found, **{f"{QRELS}{split}": files for split, files in judged.items()}}


def judged_splits(files: Iterable[str]) -> list[str]:
    """The splits that have judgements of their own."""
    return [name.removeprefix(QRELS) for name in files if name.startswith(QRELS)]


def of_split(
    files: Parts, split: str | None, preferred: Sequence[str], place: object
) -> dict[str, tuple[Path, ...]]:
    """The parts with the judgements of one split as "qrels": of `split`, or of the first of `preferred`.

    Raises:
        InputError: where there is no such split, or there are several and none is preferred.
    """
    parts = {name: tuple(paths) for name, paths in files.items() if not name.startswith(QRELS)}
    splits = judged_splits(files)
    if "qrels" in parts or not splits:
        return parts
    chosen = split or next(
        (name for name in preferred if name in splits), splits[0] if len(splits) == 1 else None
    )
    if chosen is None:
        raise InputError(f"{place}: has judgements of {', '.join(splits)}; say which with split=NAME.")
    if chosen not in splits:
        raise InputError(
            f"{place}: has no judgements of {chosen!r}, only {', '.join(splits)}.{nearest(chosen, splits)}"
        )
    return {**parts, "qrels": tuple(files[f"{QRELS}{chosen}"])}


def training_files(source: str | Path, split: str | None) -> dict[str, tuple[Path, ...]]:
    """The parts of a ranking, with the judgements of train or `split`; {} for any other source."""
    folder = Path(source).expanduser()
    files = ranking_files(folder) if folder.is_dir() else {}
    chosen = of_split(files, split, ("train",), folder) if files else {}
    return chosen if "qrels" in chosen else {}


def ranking_rows(files: Parts, *, max_line: int = MAX_LINE) -> Iterator[Raw]:
    """A row of our own form for each query with a relevant document; those judged 0 are its negatives."""
    corpus, queries = ById(DOCUMENT), ById(QUERY)
    judgements = Judgements(queries, corpus)
    bad: list[Raw] = []
    for name, part in (("corpus", corpus), ("queries", queries), ("qrels", judgements)):
        for path in files[name]:
            raws = raw_rows(path, max_line=max_line)
            for _ in usable(raws, part.add, lambda raw, error: bad.append(raw._replace(value=error))):
                pass
    yield from bad
    judgements.warn_of_missing()
    texts = {name: f"{row.fields['title']} {row.fields['text']}".strip() for name, row in corpus.rows.items()}
    for number, (query, scores) in enumerate(judgements.scores.items(), 1):
        positives = [texts[one] for one, score in scores.items() if score > 0 and texts.get(one)]
        if positives:
            where, fields = queries.rows[query]
            negatives = [texts[one] for one, score in scores.items() if score <= 0 and texts.get(one)]
            row = {"query": fields["text"], "positives": positives, "negatives": negatives}
            instruction = {"instruction": fields["instruction"]} if fields["instruction"] else {}
            yield Raw(where, number, {**row, **instruction})


def _below(folder: Path) -> dict[str, tuple[Path, ...]]:
    return split_files(folder) if folder.is_dir() and not (folder / "state.json").is_file() else {}


def _all(files: Mapping[str, tuple[Path, ...]]) -> tuple[Path, ...]:
    return tuple(path for paths in files.values() for path in paths)
