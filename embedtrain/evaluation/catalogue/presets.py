"""Task lists under one word: how much to measure.

`smoke` needs no data and shows that a model runs; `dev` looks at development splits only, so that choosing
by it leaves the published test splits clean; `quick` and `full` are test splits, for the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """One name of a preset: a task, `task:split` or a benchmark; `subsets` in mteb's words, None for all."""

    name: str
    subsets: tuple[str, ...] | None = None


SMOKE = "smoke"  # every text task of mteb's own mock grid

PRESETS: Mapping[str, tuple[Entry, ...]] = {
    "dev": (
        Entry("STSBenchmark:validation"),
        Entry("AmazonCounterfactualClassification:validation", ("en",)),
        Entry("MTOPDomainClassification:validation", ("en",)),
        Entry("MLQuestions:dev"),
    ),
    "quick": (
        Entry("BIOSSES"),
        Entry("SICK-R"),
        Entry("STS12"),
        Entry("STS13"),
        Entry("STS14"),
        Entry("STS15"),
        Entry("STS17", ("en-en",)),
        Entry("STS22.v2", ("en",)),
        Entry("STSBenchmark"),
        Entry("Banking77Classification"),
        Entry("TwentyNewsgroupsClustering.v2"),
        Entry("MedrxivClusteringS2S.v2"),
        Entry("NanoBEIR"),
    ),
    "full": (Entry("MTEB(eng, v2)"),),
}
