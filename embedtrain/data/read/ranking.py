"""Which files of a folder are a ranking: corpus, queries and judgements, ours or as others lay them out.

corpus.jsonl, queries.jsonl, qrels.jsonl                       ours
corpus.jsonl, queries.jsonl, qrels/test.tsv                    BEIR
corpus.jsonl, test_queries.jsonl, test_qrels.jsonl             FlagEmbedding; queries.dev.tsv too
corpus/, queries/, default/ or qrels/ or data/ of parquet files    a hub repository
one `DatasetDict` of corpus, queries and judgements by split
train_dataset.json {"queries", "corpus", "relevant_docs"}      LlamaIndex

In place of judgements may be triplets of ids: query, positive, negative.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtrain.data.read.bad_rows import usable
from embedtrain.data.read.retrieval import DOCUMENT, QUERY, ById, Judgements
from embedtrain.data.read.triplets import Triplet, triplet_of
from embedtrain.files.json_objects import is_ranking
from embedtrain.files.records import MAX_LINE, Raw
from embedtrain.files.rows import SPLITS, nearest, raw_rows, split_files
from embedtrain.types import InputError

Parts = Mapping[str, Sequence[Path]]  # corpus, queries, top_ranked, qrels; queries/SPLIT, qrels/SPLIT
WHOLE = ("corpus", "queries", "top_ranked")
JUDGED = (
    "qrels",
    "triplets",
    "default",
    "relevant_docs",
    "data",
)  # folders with a file of judgements a split
QRELS, QUERIES = "qrels/", "queries/"
CALLED = {"collection": "corpus", "relevant_docs": "qrels", "triplets": "qrels", "qidpidtriples": "qrels"}
NAMED = re.compile(
    r"(?:(?P<before>\w+?)[._-])?(?P<part>corpus|collection|queries|qrels|relevant_docs|triplets|qidpidtriples|"
    r"top_ranked)(?:[._-](?P<after>.+))?"
)


def ranking_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each part; {} where the folder has no corpus or no queries."""
    top = split_files(folder)
    found = _named(top)
    if "corpus" not in found and (folder / "data").is_dir():
        below = split_files(folder / "data")
        if "corpus" in (inner := _named(below)):
            top, found = below, inner
    for part in WHOLE:
        if part not in found and (files := _one_part(folder / part, part)):
            found[part] = files
    if "corpus" not in found or not any(name.split("/")[0] == "queries" for name in found):
        return _whole_files(top)
    if any(name.split("/")[0] == "qrels" for name in found):
        return found
    judged = {name: files for name, files in top.items() if name in SPLITS}
    for name in JUDGED:
        judged = judged or {
            split: files for split, files in _below(folder / name).items() if split not in WHOLE
        }
    return {**found, **{f"{QRELS}{split}": files for split, files in judged.items()}}


def _named(files: Parts) -> dict[str, tuple[Path, ...]]:
    """Files by part, as their names say: test_queries is queries/test."""
    found: dict[str, tuple[Path, ...]] = {}
    for name, paths in files.items():
        match = NAMED.fullmatch(name)
        if match is None:
            continue
        part = CALLED.get(match["part"], match["part"])
        split = match["before"] or match["after"]
        if split is not None and (part not in ("queries", "qrels") or split.split(".")[0] not in SPLITS):
            continue
        key = part if split is None else f"{part}/{split}"
        if key not in found or match["part"] == part:  # qrels before triplets, which say less
            found[key] = tuple(paths)
    return found


def _whole_files(files: Parts) -> dict[str, tuple[Path, ...]]:
    """Files that are each a whole ranking, of a split or the only one."""
    whole = {name: tuple(paths) for name, paths in files.items() if len(paths) == 1 and _is_whole(paths[0])}
    if not whole:
        return {}
    every = tuple(path for paths in whole.values() for path in paths)
    if len(whole) == 1:
        return dict.fromkeys(("corpus", "queries", "qrels"), every)
    judged = {f"{QRELS}{re.split('[._-]', name)[0]}": paths for name, paths in whole.items()}
    return {"corpus": every, "queries": every, **judged}


def _is_whole(path: Path) -> bool:
    if not path.is_file() or ".json" not in path.suffixes[-2:]:
        return False
    first = next(iter(raw_rows(path)), None)  # a whole ranking is one row
    return first is not None and isinstance(first.value, dict) and is_ranking(first.value)


def part_rows(path: Path, part: str, *, max_line: int = MAX_LINE) -> Iterator[Raw]:
    """The rows of corpus, queries or qrels in a file, which may be a whole ranking."""
    for raw in raw_rows(path, max_line=max_line):
        if isinstance(raw.value, dict) and is_ranking(raw.value):
            rows = _rows_of(part, raw.value)
            yield from (Raw(f"{path}: {part} {number}", number, row) for number, row in enumerate(rows, 1))
        else:
            yield raw


def _rows_of(part: str, ranking: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if part == "qrels":
        for query, judged in ranking["relevant_docs"].items():
            scores = judged.items() if isinstance(judged, Mapping) else dict.fromkeys(judged, 1).items()
            yield from ({"query_id": query, "corpus_id": doc, "score": score} for doc, score in scores)
        return
    for name, content in ranking.get(part, {}).items():
        yield {"id": name, **(content if isinstance(content, Mapping) else {"text": content})}


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
    parts = {name: tuple(paths) for name, paths in files.items() if "/" not in name}
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
    judged = tuple(files[f"{QRELS}{chosen}"])
    if set(judged) <= set(parts["corpus"]):  # each file is a ranking of its own
        return dict.fromkeys(("corpus", "queries", "qrels"), judged)
    own = tuple(files.get(f"{QUERIES}{chosen}", ()))
    return {**parts, **({"queries": own} if own else {}), "qrels": judged}


def training_files(source: str | Path, split: str | None) -> dict[str, tuple[Path, ...]]:
    """The parts of a ranking, with the judgements of train or `split`; {} for any other source.

    The source is their folder, a file that is a whole ranking, or a file of judgements that has corpus and
    queries beside or above it.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        files = ranking_files(path)
        chosen = of_split(files, split, ("train",), path) if files else {}
        return chosen if "qrels" in chosen else {}
    if not path.is_file():
        return {}
    if _is_whole(path):
        return dict.fromkeys(("corpus", "queries", "qrels"), (path,))
    for folder in (path.parent, path.parent.parent):
        files = ranking_files(folder) if _may_be_ranking(folder) else {}
        for name, paths in files.items():
            if name.split("/")[0] == "qrels" and path in paths:
                return of_split({**files, name: (path,)}, name.removeprefix(QRELS), (), folder)
    return {}


def _may_be_ranking(folder: Path) -> bool:
    """Whether a folder has a corpus by its name: others are not listed for each file of rows."""
    return any(folder.glob("corpus*")) or any(folder.glob("collection*"))


def ranking_rows(files: Parts, *, max_line: int = MAX_LINE) -> Iterator[Raw]:
    """A row of our own form for each query with a relevant document; those judged 0 are its negatives.

    A triplet of ids is a row of its own.
    """
    corpus, queries = ById(DOCUMENT), ById(QUERY)
    judgements = Judgements(queries, corpus)
    bad: list[Raw] = []
    triplets: list[tuple[str, Triplet]] = []

    def judge(where: str, row: Mapping[str, Any]) -> None:
        triplet = triplet_of(where, row)
        if triplet is None:
            judgements.judge(where, row)
        elif (known := judgements.known(where, triplet)) is not None:
            triplets.append((where, known))

    adding: dict[str, Callable[[str, Mapping[str, Any]], None]]
    adding = {"corpus": corpus.add, "queries": queries.add, "qrels": judge}
    for name, add in adding.items():
        for path in files[name]:
            raws = part_rows(path, name, max_line=max_line)
            for _ in usable(raws, add, lambda raw, error: bad.append(raw._replace(value=error))):
                pass
    yield from bad
    judgements.warn_of_missing()
    yield from _judged_rows(queries, corpus, judgements, triplets)


def _judged_rows(
    queries: ById, corpus: ById, judgements: Judgements, triplets: Sequence[tuple[str, Triplet]]
) -> Iterator[Raw]:
    texts = {name: f"{row.fields['title']} {row.fields['text']}".strip() for name, row in corpus.rows.items()}
    judged: list[tuple[str, Triplet]] = []
    for query, scores in judgements.scores.items():
        good = tuple(one for one, score in scores.items() if score > 0)
        others = tuple(one for one, score in scores.items() if score <= 0)
        judged.append((queries.rows[query].where, Triplet(query, good, others)))
    for number, (where, triplet) in enumerate([*triplets, *judged], 1):
        positives, negatives = ([texts[one] for one in ids if texts.get(one)] for ids in triplet[1:3])
        if positives:
            fields = queries.rows[triplet.query].fields
            row = {"query": fields["text"], "positives": positives, "negatives": negatives}
            more = {"instruction": fields["instruction"] or None, "score": triplet.score}
            yield Raw(where, number, row | {key: value for key, value in more.items() if value is not None})


def _one_part(folder: Path, part: str) -> tuple[Path, ...]:
    below = _below(folder)
    return below.get(part) or tuple(path for paths in below.values() for path in paths)


def _below(folder: Path) -> dict[str, tuple[Path, ...]]:
    return split_files(folder) if folder.is_dir() and not (folder / "state.json").is_file() else {}
