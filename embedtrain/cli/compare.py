"""embedtrain-compare: which differences of measured scores are more than chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from embedtrain.settings.commands import CompareSettings


def main() -> None:
    """Entry point of `embedtrain-compare`."""
    start("compare")


def run(settings: CompareSettings) -> None:
    """Compare runs, or the cells of one; print the tables and write comparison.json."""
    import json
    from pathlib import Path

    from rich.console import Console

    from embedtrain.escaping import terminal
    from embedtrain.files.atomic import write_text
    from embedtrain.files.owned import require_own_json
    from embedtrain.reporting.verdicts import smallest_table, subset_table, tasks_table, verdict_table
    from embedtrain.run.compare import comparison_of, subset_of

    names = "-".join(Path(text.partition("@")[0]).name for text in settings.runs)
    file = Path(settings.output or Path(settings.output_root) / f"comparison-{names}") / "comparison.json"
    require_own_json(file, "settings")
    console = Console()
    if settings.subset:
        result = subset_of(settings)
        console.print(subset_table(result["subset"]))
    else:
        result = comparison_of(settings)
        console.print(verdict_table(result["rows"], alpha=settings.alpha, correction=settings.correction))
        if result["over_tasks"]:
            console.print(tasks_table(result["over_tasks"]))
        if result["smallest"]:
            console.print(smallest_table(result["smallest"]))
    write_text(file, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(terminal(f"comparison: {file}"))


if __name__ == "__main__":
    main()
