"""How long the texts are as the model reads them, what is cut off, and texts of which it sees nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from embedtrain.data.read.sources import Example
from embedtrain.doctor.findings import SHOWN, Finding, clip, finding, graded, percent
from embedtrain.doctor.rows import Sample, parts_of
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.types import Role

CHECK = "lengths"
PARTS = ("query", "positive", "negative")
MOST_TEXTS = 10_000  # of each part
LONGEST = 1_000_000  # tokens: nothing is cut
CUT = 0.05  # share of truncated texts
UNKNOWN = 0.05  # share of unknown tokens

Text = tuple[str, str | None, str]  # text, prompt, place


def length_findings(sample: Sample, process: TextTokenizer, positions: int | None) -> Iterator[Finding]:
    """Of queries, positives and negatives: lengths in tokens, what is cut off, what is empty or unknown.

    Args:
        sample: rows.
        process: the model's.
        positions: the longest that the backbone can read; None where it has no such bound.
    """
    rows = sample.examples
    some = random.Random(0).sample(rows, MOST_TEXTS) if len(rows) > MOST_TEXTS else rows
    for part in PARTS:
        texts = list(islice(_distinct(some, part), MOST_TEXTS))
        if texts:
            yield from _findings(part, texts, process, positions)


def histogram(lengths: Sequence[int]) -> dict[str, int]:
    """Counts by length: up to 8, 16, 32, ... tokens."""
    counts: dict[str, int] = {}
    for length in sorted(lengths):
        bound = max(8, 1 << (length - 1).bit_length())
        counts[f"<={bound}"] = counts.get(f"<={bound}", 0) + 1
    return counts


def suggested(lengths: Sequence[int], positions: int | None) -> int:
    """The least multiple of 8 that cuts at most one text in a hundred, as far as the backbone reads."""
    ordered = sorted(lengths)
    needed = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    rounded = -(-needed // 8) * 8
    return rounded if positions is None else min(rounded, positions)


def _findings(
    part: str, texts: Sequence[Text], process: TextTokenizer, positions: int | None
) -> Iterator[Finding]:
    role: Role = "query" if part == "query" else "document"
    whole = copy.copy(process)
    whole.max_length = LONGEST
    read = whole.read([text for text, _, _ in texts], role, [prompt for _, prompt, _ in texts])
    lengths = [len(item.ids) for item in read]
    yield _long(part, texts, lengths, process.max_length, positions)
    nothing = {
        prompt: len(whole.read([""], role, [prompt])[0].ids) for prompt in {prompt for _, prompt, _ in texts}
    }
    empty = [
        f"{where}: {clip(text)}"
        for (text, prompt, where), length in zip(texts, lengths, strict=True)
        if not text.strip() or (length <= nothing[prompt] and length > 1)
    ]
    if empty:
        yield finding(
            CHECK,
            "error",
            f"{len(empty):,} of {len(texts):,} {part} texts have no token of their own",
            "Leave these rows out: the model sees nothing of them.",
            empty,
            part=part,
            empty=len(empty),
        )
    unknown = process.tokenizer.unk_token_id
    missed = sum(item.ids.count(unknown) for item in read) if isinstance(unknown, int) else 0
    if missed >= UNKNOWN * sum(lengths):
        yield finding(
            CHECK,
            "warning",
            f"{percent(missed, sum(lengths))} of the {part} tokens are unknown to the tokenizer",
            "Take a backbone of the language and script of the texts.",
            part=part,
            unknown=missed,
            tokens=sum(lengths),
        )


def _long(
    part: str, texts: Sequence[Text], lengths: Sequence[int], most: int, positions: int | None
) -> Finding:
    cut = [place for place, length in enumerate(lengths) if length > most]
    lost = sum(lengths[place] - most for place in cut)
    ordered = sorted(lengths)
    better = suggested(lengths, positions)
    cure = "Split long texts, or take a backbone that reads longer ones, if what is cut off matters."
    if better > most:
        cure = f"backbone.max_length={better} would cut at most one in a hundred; memory grows with it."
    longest = sorted(cut, key=lambda place: -lengths[place])[:SHOWN]
    middle = ordered[len(ordered) // 2]
    return finding(
        CHECK,
        graded(len(cut), CUT * len(lengths)),
        f"{part}: {middle} tokens in the middle, {ordered[-1]} at most; {percent(len(cut), len(lengths))} of "
        f"{len(lengths):,} texts are cut at max_length={most}, "
        f"{percent(lost, sum(lengths))} of all tokens lost",
        cure,
        (f"{texts[place][2]}: {lengths[place]} tokens, {clip(texts[place][0])}" for place in longest),
        part=part,
        texts=len(lengths),
        tokens=sum(lengths),
        median=middle,
        longest=ordered[-1],
        histogram=histogram(lengths),
        truncated=len(cut),
        tokens_lost=lost,
        max_length=most,
        suggested_max_length=better,
    )


def _distinct(examples: Iterable[Example], part: str) -> Iterator[Text]:
    """The texts of a part, each once behind each prompt, with the place where it came first."""
    first: dict[tuple[str, str | None], str] = {}
    for example in examples:
        prompt = example.prompts.query if part == "query" else example.prompts.document
        for text in parts_of(example)[part]:
            first.setdefault((text, prompt), example.where)
    return ((text, prompt, where) for (text, prompt), where in first.items())
