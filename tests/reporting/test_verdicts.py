"""Comparisons as tables: readable at 80 columns, on a terminal and in a file."""

import io

from rich.console import Console

from embedtrain.reporting.verdicts import verdict_table


def _row(run: str, other: str) -> dict[str, object]:
    return {
        "task": "AskUbuntuDupQuestions",
        "metric": "cosine_spearman",
        "first": {"run": run, "cell": "L6_D384", "score": 0.9357, "seeds": None},
        "second": {"run": other, "cell": "L3_D96", "score": 0.5652, "seeds": None},
        "difference": -0.3705,
        "low": -0.41,
        "high": -0.33,
        "p": 0.0001,
        "corrected": 0.0002,
        "verdict": "worse",
    }


def _shown(rows: list[dict[str, object]]) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(verdict_table(rows, alpha=0.05, correction="holm"))
    return out.getvalue().splitlines()


def test_no_word_or_number_is_folded_at_80_columns() -> None:
    lines = _shown([_row("runs/mine", "runs/mine")])
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for whole in (
        "AskUbuntuDupQuestions",
        "cosine_spearman",
        "L6_D384",
        "93.57",
        "-37.05",
        "worse",
        "p 0.0002",
    ):
        assert whole in text
    assert "runs/mine" not in text  # one run: its name says nothing


def test_two_runs_are_named() -> None:
    text = "\n".join(_shown([_row("runs/a", "runs/b")]))
    assert "runs/a L6_D384" in text
    assert "runs/b L3_D96" in text


def test_an_interval_that_says_more_than_p_is_explained() -> None:
    row = _row("runs/mine", "runs/mine")
    assert "p counts" not in "\n".join(_shown([row]))
    assert "p counts" in " ".join(_shown([row | {"verdict": "not distinguishable", "corrected": 0.5}]))
    assert "p counts" not in "\n".join(_shown([row | {"verdict": "not distinguishable", "high": 0.02}]))
