"""Training pairs with negatives that are false, and known to be: edited copies of positives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from in_process import Row

from embedtrain.types import content_id

KINDS = ("case", "punctuation", "word")
FUNCTION_WORDS = frozenset("a an the is are of in on at to and with for by from his her its their".split())


class Noisy(NamedTuple):
    """Training rows, and which negatives are false by construction."""

    rows: list[Row]
    false_for: dict[int, frozenset[int]]  # text id of a copy -> the rows whose positive it is
    kind: dict[int, str]  # text id of a copy -> how it was edited


def edited(text: str, kind: str, draw: random.Random) -> str | None:
    """The text with one thing changed; None where there is nothing to change."""
    if kind == "case":
        return next((form for form in (text.upper(), text.lower()) if form != text), None)
    if kind == "punctuation":
        bare = text.rstrip(" .!?")
        return bare if bare != text else f"{text}."
    words = text.split()
    places = [place for place, word in enumerate(words) if word.lower() in FUNCTION_WORDS]
    if not places or len(words) < 4:
        return None
    out = draw.choice(places)
    return " ".join(words[:out] + words[out + 1 :])


def noisy(
    pairs: Sequence[Row], fillers: Sequence[str], *, share: float, copies: int, hard: int, seed: int
) -> Noisy:
    """The pairs, each with `hard` negatives: random ones, and edited copies of positives of others.

    Args:
        pairs: {"query", "positive"}.
        fillers: random sentences.
        share: of the pairs whose positive is copied.
        copies: of each, under as many other queries.
        hard: negatives of a row.
        seed: of all that is drawn.
    """
    draw = random.Random(seed)
    labelled = {row[side] for row in pairs for side in ("query", "positive")}
    places: dict[str, set[int]] = {}  # text -> rows that have it
    for number, row in enumerate(pairs):
        for side in ("query", "positive"):
            places.setdefault(row[side], set()).add(number)
    negatives: list[list[str]] = [[] for _ in pairs]
    false_for: dict[int, frozenset[int]] = {}
    kinds: dict[int, str] = {}
    for number in draw.sample(range(len(pairs)), round(share * len(pairs))):
        positive = pairs[number]["positive"]
        free = [row for row, held in enumerate(negatives) if len(held) < hard and row not in places[positive]]
        for row in draw.sample(free, copies):
            kind = draw.choice(KINDS)
            copy = edited(positive, kind, draw) or edited(positive, kind := "punctuation", draw)
            if copy is None or copy in labelled:  # another row's own text is labelled, not noise
                continue
            key = content_id(copy)
            negatives[row].append(copy)
            false_for[key] = false_for.get(key, frozenset()) | places[positive]
            kinds[key] = kind
    for held in negatives:
        held += draw.sample(fillers, hard - len(held))
        draw.shuffle(held)
    rows = [{**row, "negatives": held} for row, held in zip(pairs, negatives, strict=True)]
    return Noisy(rows, false_for, kinds)
