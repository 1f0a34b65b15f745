"""Texts with class labels to triplets: a text, another one of its class, one of another class.

python -m embedtrain.data.labelled ROWS OUT [--text text] [--label label] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from embedtrain import console
from embedtrain.data.read.fields import label, missing, text
from embedtrain.files.atomic import plain_error, write_text
from embedtrain.files.rows import read_rows
from embedtrain.types import InputError


def triplets(texts: Sequence[tuple[str, str]], seed: int = 0) -> Iterator[dict[str, str]]:
    """A row for each (text, label) whose label has another text, in their order.

    Raises:
        InputError: where all texts have one label, or no label has two texts.
    """
    by_label: dict[str, list[str]] = {}
    for one, name in texts:
        members = by_label.setdefault(name, [])
        if one not in members[-1:]:
            members.append(one)
    if len(by_label) < 2 or max(map(len, by_label.values())) < 2:
        raise InputError(
            f"{len(texts)} texts of {len(by_label)} labels: give two labels, one with two texts."
        )
    draw, names = random.Random(seed), list(by_label)
    for one, name in texts:
        alike = [other for other in draw.sample(by_label[name], min(3, len(by_label[name]))) if other != one]
        if alike:
            other = draw.choice([label for label in draw.sample(names, 2) if label != name])
            yield {"query": one, "positive": alike[0], "negative": draw.choice(by_label[other])}


def main(words: Sequence[str] | None = None) -> None:
    """Write the triplets of a file, a folder or a saved data set."""
    parser = argparse.ArgumentParser(
        prog="python -m embedtrain.data.labelled", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("rows")
    parser.add_argument("out", help="a .jsonl file")
    parser.add_argument("--text", default="text", help="the column of texts")
    parser.add_argument("--label", default="label", help="the column of labels")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    try:
        texts = []
        for where, row in read_rows(given.rows):
            for name in (given.text, given.label):
                if row.get(name) is None:
                    raise missing(where, name, row, " Name it: --text NAME, --label NAME.")
            one, name = row[given.text], row[given.label]
            texts.append((text(where, given.text, one), label(where, given.label, name)))
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in triplets(texts, given.seed)]
        write_text(Path(given.out), "".join(lines))
    except (InputError, OSError) as error:
        said = plain_error(error, given.out) if isinstance(error, OSError) else error
        parser.exit(1, f"error: {said}\n")
    console.log(f"{given.out}: {len(lines)} triplets of {len(texts)} texts")


if __name__ == "__main__":
    main()
