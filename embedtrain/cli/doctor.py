"""embedtrain-doctor: a training command in, a report of what is wrong with that run out."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from embedtrain.doctor.findings import Finding
    from embedtrain.settings.commands import ExamineSettings

COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}


def main() -> None:
    """Entry point of `embedtrain-doctor`."""
    start("doctor")


def run(settings: ExamineSettings) -> None:
    """Examine the run, show and write what was found; leave with status 1 if anything is an error."""
    # torch and friends are slow to import; --help is not
    import json
    import tempfile
    from pathlib import Path

    from rich.console import Console

    from embedtrain.console import log
    from embedtrain.doctor.examine import findings_of
    from embedtrain.doctor.findings import counted, worst
    from embedtrain.files.atomic import write_text
    from embedtrain.files.owned import require_own_json
    from embedtrain.types import InputError

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "start embedtrain-doctor as one process: it looks at the batches of all ranks by itself"
        )
    out = Path(settings.doctor.out or Path(settings.output_root) / f"{settings.name}-doctor.json")
    require_own_json(out, "name", "worst", "findings")
    with tempfile.TemporaryDirectory(prefix="embedtrain-doctor-") as scratch:
        findings = findings_of(settings, Path(scratch))
    report = {
        "name": settings.name,
        "worst": worst(findings),
        "counts": counted(findings),
        "findings": [finding.plain() for finding in findings],
    }
    write_text(out, json.dumps(report, indent=2, default=str) + "\n")
    show(findings, Console())
    log(f"report: {out}")
    if report["worst"] == "error":
        sys.exit(1)


def show(findings: Sequence[Finding], console: Console) -> None:
    """All findings in their order, examples and cures below each; last how many there are of each level."""
    from embedtrain.doctor.findings import counted
    from embedtrain.escaping import styled

    check = ""
    for finding in findings:
        if finding.check != check:
            check = finding.check
            console.print("\n", styled(check, "bold"), sep="", highlight=False)
        level = styled(f"  {finding.level:7}", COLOURS[finding.level])
        console.print(level, styled(finding.message), highlight=False, soft_wrap=True)
        for example in finding.examples:
            console.print(styled(f"            {example}", "dim"), highlight=False, soft_wrap=True)
        if finding.cure:
            console.print(styled(f"          → {finding.cure}"), highlight=False, soft_wrap=True)
    counts = ", ".join(f"{count} {level}" for level, count in counted(findings).items() if count)
    console.print(f"\n{counts}", highlight=False)


if __name__ == "__main__":
    main()
