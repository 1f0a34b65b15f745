"""Numbers and examples that show how well mining went.

Letters: b queries of a block, C candidates, K negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedtrain.mining.mine import Block
from embedtrain.mining.problem import Problem

EDGES = np.round(np.linspace(-1.0, 1.0, 101), 2)  # of the histograms: cosines, and probabilities
EXAMPLES = 20
SHOWN = 200  # characters of a text in an example


class Histogram:
    """Scores counted in steps of 0.02 from -1 to 1; those outside are counted apart."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(EDGES) - 1, dtype=np.int64)
        self.below = self.above = self.total = 0
        self.sum, self.least, self.most = 0.0, np.inf, -np.inf

    def add(self, scores: NDArray[np.float64]) -> None:
        """Count scores, of any shape."""
        if not scores.size:
            return
        self.counts += np.histogram(scores, EDGES)[0]
        self.below += int((scores < EDGES[0]).sum())
        self.above += int((scores > EDGES[-1]).sum())
        self.total += scores.size
        self.sum += float(scores.sum())
        self.least, self.most = min(self.least, float(scores.min())), max(self.most, float(scores.max()))

    def summary(self) -> dict[str, Any]:
        """Count, mean, extremes, and the counts of the bins that are not empty by their lower edges."""
        if not self.total:
            return {"count": 0}
        filled = np.flatnonzero(self.counts).tolist()
        return {
            "count": self.total,
            "mean": round(self.sum / self.total, 6),
            "least": round(self.least, 6),
            "most": round(self.most, 6),
            "bins": {f"{EDGES[place]:.2f}": int(self.counts[place]) for place in filled},
            "below": self.below,
            "above": self.above,
        }


class Suspect(NamedTuple):
    """A candidate that a rule took out."""

    excess: float  # its score less the reference
    rule: str
    query: str
    positive: str
    candidate: str
    score: float
    reference: float


class Statistics:
    """Counts over all blocks that it is shown; `note` is one of the `notes` of `mine`."""

    def __init__(self, rules: Sequence[str], per_row: int) -> None:
        self.per_row = per_row
        self.positives, self.negatives = Histogram(), Histogram()
        self.removed = {name: Histogram() for name in rules}
        self.considered = 0
        self.queries_with = np.zeros(per_row + 1, dtype=np.int64)  # 0..K negatives
        self.rows_with = np.zeros(per_row + 1, dtype=np.int64)
        self._suspects: list[tuple[float, Suspect]] = []

    def note(self, problem: Problem, block: Block) -> None:
        """Count a block."""
        self.considered += int(block.candidates.there.sum())
        counts = [len(problem.positives[query]) for query in block.queries]
        for scores, count in zip(block.labelled, counts, strict=True):
            self.positives.add(scores[:count])
        self.negatives.add(block.scores[~np.isnan(block.scores)])
        for name, mask in block.removed.items():
            self.removed[name].add(block.candidates.scores[mask])
        counts = (block.negatives >= 0).sum(1)
        self.queries_with += np.bincount(counts, minlength=self.per_row + 1)
        times = np.bincount(problem.query_of, minlength=len(problem.queries))[block.queries]
        self.rows_with += np.bincount(counts, weights=times, minlength=self.per_row + 1).astype(np.int64)
        self._note_suspects(problem, block)

    def summary(self) -> dict[str, Any]:
        """Everything, in plain containers."""
        share = max(self.considered, 1)
        return {
            "rows": int(self.rows_with.sum()),
            "queries": int(self.queries_with.sum()),
            "negatives": self.negatives.total,
            "candidates": self.considered,
            "rows_with_negatives": {str(count): int(rows) for count, rows in enumerate(self.rows_with)},
            "removed": {
                name: {"count": scores.total, "share": round(scores.total / share, 6)}
                for name, scores in self.removed.items()
            },
            "scores": {
                "positives": self.positives.summary(),
                "negatives": self.negatives.summary(),
                **{f"removed_{name}": scores.summary() for name, scores in self.removed.items()},
            },
            "suspects": [suspect._asdict() for _, suspect in self._suspects],
        }

    def _note_suspects(self, problem: Problem, block: Block) -> None:
        """Keep the removed candidates that are furthest above the reference, each query's best one only."""
        for name, mask in block.removed.items():
            seen = block.candidates
            excess = np.where(mask, seen.scores - seen.reference[:, None], -np.inf)  # (b, C)
            if not excess.size:
                continue
            columns = excess.argmax(1)
            best = excess[np.arange(len(columns)), columns]
            for row in np.argsort(-best, kind="stable")[:EXAMPLES].tolist():
                if np.isfinite(best[row]):
                    self._keep(problem, block, row, int(columns[row]), name, float(best[row]))

    def _keep(self, problem: Problem, block: Block, row: int, column: int, rule: str, excess: float) -> None:
        query = int(block.queries[row])
        scores = block.labelled[row][: len(problem.positives[query])]
        reference = float(block.candidates.reference[row])
        positive = int(problem.positives[query][int(np.abs(scores - reference).argmin())])
        suspect = Suspect(
            round(excess, 6),
            rule,
            problem.queries[query].text[:SHOWN],
            problem.documents[positive][:SHOWN],
            problem.documents[int(block.documents[row, column])][:SHOWN],
            round(float(block.candidates.scores[row, column]), 6),
            round(reference, 6),
        )
        self._suspects.append((excess, suspect))
        self._suspects.sort(key=lambda one: -one[0])  # stable: earlier ones win ties
        del self._suspects[EXAMPLES:]


def readable(summary: dict[str, Any]) -> list[str]:
    """The summary as lines for a terminal."""
    scores = summary["scores"]
    lines = [
        f"{summary['rows']} rows, {summary['queries']} distinct queries, {summary['negatives']} negatives "
        f"for them among {summary['candidates']} candidates"
    ]
    for name in ("positives", "negatives"):
        part = scores[name]
        if part["count"]:
            lines.append(f"{name}: mean score {part['mean']:.4f}, {part['least']:.4f} to {part['most']:.4f}")
    lines += [
        f"removed by {name}: {part['count']} ({100 * part['share']:.2f} % of the candidates)"
        for name, part in summary["removed"].items()
    ]
    counts = (f"{rows} have {count}" for count, rows in summary["rows_with_negatives"].items() if rows)
    lines.append(f"rows by negatives: {', '.join(counts)}")
    if summary["suspects"]:
        first = summary["suspects"][0]
        lines.append(
            f"likeliest false negative taken out ({first['rule']}, {first['score']:.4f} beside "
            f"{first['reference']:.4f}): {first['query'][:60]!r} -> {first['candidate'][:60]!r}"
        )
    return lines
