"""embedtrain-compare: which differences of measured scores are more than chance."""

from __future__ import annotations

from typing import Any

from embedtrain.cli.launch import launch


def main() -> None:
    """Entry point of `embedtrain-compare`."""
    launch("compare", compare)


def compare(config: dict[str, Any]) -> None:
    """Compare runs, or the cells of one; print the tables and write comparison.json."""
    import json
    from pathlib import Path

    from rich.console import Console

    from embedtrain.report.verdicts import smallest_table, subset_table, tasks_table, verdict_table
    from embedtrain.run.compare import comparison_of, subset_of

    console = Console()
    if config["subset"]:
        found = subset_of(config)
        console.print(subset_table(found["subset"]))
    else:
        found = comparison_of(config)
        console.print(verdict_table(found["rows"], alpha=config["alpha"], correction=config["correction"]))
        if found["over_tasks"]:
            console.print(tasks_table(found["over_tasks"]))
        if found["smallest"]:
            console.print(smallest_table(found["smallest"]))
    names = "-".join(Path(run.partition("@")[0]).name for run in config["runs"])
    folder = Path(config["output"] or Path(config["output_root"]) / f"comparison-{names}")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "comparison.json"
    file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"comparison: {file}")


if __name__ == "__main__":
    main()
