"""embedtrain-doctor: the words of embedtrain-train in, a report of what is wrong with that run out."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf, ValidationError
from rich.console import Console

from embedtrain.cli.launch import fail, launch
from embedtrain.cli.mistyped import mistyped
from embedtrain.settings.names import nearest
from embedtrain.settings.schemas import DoctorConfig
from embedtrain.types import InputError

if TYPE_CHECKING:
    import torch

    from embedtrain.doctor.examine import Circumstances
    from embedtrain.doctor.findings import Finding
    from embedtrain.doctor.patient import Patient

PREFIX = "doctor."
COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}


def main() -> None:
    """Entry point of `embedtrain-doctor`."""
    own = [word for word in sys.argv[1:] if word.startswith(PREFIX)]
    sys.argv[1:] = [word for word in sys.argv[1:] if not word.startswith(PREFIX)]
    try:
        settings = doctor_settings([word.removeprefix(PREFIX) for word in own])
    except InputError as error:
        fail(error)
    launch("train", partial(run, settings))


def doctor_settings(words: Sequence[str]) -> DoctorConfig:
    """The settings that `doctor.KEY=VALUE` words say.

    Raises:
        InputError: for an unknown key or a value of another type.
    """
    known = list(DoctorConfig.__dataclass_fields__)
    for word in words:
        key, equals, _ = word.partition("=")
        if key not in known or not equals:
            raise InputError(
                f"unknown config key '{PREFIX}{key}'{nearest(key, known)} There are: "
                + ", ".join(f"{PREFIX}{name}" for name in known)
            )
    try:
        merged = OmegaConf.merge(OmegaConf.structured(DoctorConfig), OmegaConf.from_dotlist(list(words)))
        settings = OmegaConf.to_object(merged)
    except ValidationError as error:
        told = mistyped(error, DoctorConfig, words) or str(error).splitlines()[0]
        raise InputError(f"{PREFIX}{told}") from error
    assert isinstance(settings, DoctorConfig)
    for name in ("rows", "batch_rows"):
        if getattr(settings, name) < 2:
            raise InputError(f"{PREFIX}{name} must be 2 or more, got {getattr(settings, name)}")
    return settings


def run(settings: DoctorConfig, config: dict[str, Any]) -> None:
    """Examine the run, show and write what was found; leave with status 1 if anything is an error."""
    from embedtrain.console import log
    from embedtrain.doctor.findings import counted, worst

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "start embedtrain-doctor as one process: it looks at the batches of all ranks by itself"
        )
    with tempfile.TemporaryDirectory(prefix="embedtrain-doctor-") as scratch:
        findings = found(settings, config, Path(scratch))
    out = Path(settings.out or Path(config["output_root"]) / f"{config['name']}-doctor.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "name": config["name"],
        "worst": worst(findings),
        "counts": counted(findings),
        "findings": [finding.plain() for finding in findings],
    }
    out.write_text(json.dumps(report, indent=2, default=str) + "\n", "utf-8")
    show(findings, Console())
    log(f"report: {out}")
    if report["worst"] == "error":
        sys.exit(1)


def found(settings: DoctorConfig, config: dict[str, Any], scratch: Path) -> list[Finding]:
    """All findings. A run that cannot be built is one finding, an error."""
    # torch and friends are slow to import; --help is not
    from embedtrain.console import duration, log
    from embedtrain.doctor.examine import examine
    from embedtrain.doctor.findings import Finding
    from embedtrain.run.run import TrainingRun

    findings = [state_of_folder(config)]
    plan = logging.getLogger("embedtrain.data.order.run_plan")
    level = plan.level
    plan.setLevel(logging.WARNING)  # the report says the same
    try:
        begun = time.perf_counter()
        training = TrainingRun(aside(config, scratch))
        log(f"rows read, run built: {duration(time.perf_counter() - begun)}")
        patient, told = examined(training, settings, config, scratch)
        findings += examine(patient, told, lambda name, seconds: log(f"{name}: {duration(seconds)}"))
    except InputError as error:
        findings.append(Finding("run", "error", f"it cannot start: {error}"))
    finally:
        plan.setLevel(level)
    return findings


def aside(config: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """The config of the same run in a folder of its own, which reports all bad rows instead of one.

    The rows of streamed datasets are written where the run itself looks for them.
    """
    data = dict(config["data"])
    data.setdefault("cache", str(Path(config["output_root"]) / ".rows"))
    if data.get("on_bad_row", "error") == "error":
        data["on_bad_row"] = "skip"
    return config | {"output_root": str(scratch), "data": data, "logger": {}, "overwrite": False}


def state_of_folder(config: dict[str, Any]) -> Finding:
    """Whether the run's own folder is free; nothing in it is touched."""
    from embedtrain.doctor.findings import Finding
    from embedtrain.files.run_folder import RunFolder

    folder = RunFolder(config["output_root"], config["name"])
    if folder.model.exists() and not config["overwrite"]:
        cure = "Use another name=..., or overwrite=true to replace it."
        return Finding("run", "error", f"{folder.path} holds a finished run", cure)
    if folder.config.exists() and not config["overwrite"]:
        return Finding("run", "note", f"{folder.path} holds an unfinished run, which would be continued")
    return Finding("run", "ok", f"{folder.path} is free")


def examined(
    training: Any,  # noqa: ANN401 (TrainingRun, which is slow to import)
    settings: DoctorConfig,
    config: dict[str, Any],
    scratch: Path,
) -> tuple[Patient, Circumstances]:
    """What the checks look at, from a run that is built."""
    from embedtrain.doctor.examine import Circumstances
    from embedtrain.doctor.patient import Patient

    trainer = training.trainer
    device: torch.device = trainer.strategy.root_device
    training.encoder.to(device)
    training.loss.objective.to(device)
    patient = Patient(
        training.encoder,
        training.plan,
        training.loss,
        training.data,
        training.gradcache,
        ranks=trainer.world_size,
        accumulate=trainer.accumulate_grad_batches,
        device=device,
        autocast=trainer.precision_plugin.forward_context,
    )
    report = training.folder.path / "bad_rows" / "bad_rows.jsonl"
    lines = report.read_text("utf-8").splitlines() if report.exists() else []
    own = settings.memory_gb
    told = Circumstances(
        evaluation=config["evaluation"],
        scratch=scratch,
        bad_rows=[json.loads(line) for line in lines],
        on_bad_row=config["data"].get("on_bad_row", "error"),
        workers=config["data"].get("num_workers", 0),
        memory=memory_of(device) if own is None else int(own * 2**30),
        resident=resident() if device.type == "cpu" else 0,
        sharing=trainer.num_devices if device.type == "cpu" else 1,
        rows=settings.rows,
        batch_rows=settings.batch_rows,
        overlap=settings.overlap,
    )
    return patient, told


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not say."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else 0


def memory_of(device: torch.device) -> int:
    """Bytes that a device has; of the CPU what the machine or its container has."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    held = limit.read_text().strip() if limit.exists() else "max"
    return min(machine, int(held)) if held.isdigit() else machine


def show(findings: Sequence[Finding], console: Console) -> None:
    """All findings in their order, examples and cures below each; last how many there are of each level."""
    from rich.markup import escape

    from embedtrain.doctor.findings import counted

    check = ""
    for finding in findings:
        if finding.check != check:
            check = finding.check
            console.print(f"\n[bold]{check}[/bold]", highlight=False)
        colour = COLOURS[finding.level]
        console.print(
            f"  [{colour}]{finding.level:7}[/{colour}] {escape(finding.message)}",
            highlight=False,
            soft_wrap=True,
        )
        for example in finding.examples:
            console.print(f"            {escape(example)}", style="dim", highlight=False, soft_wrap=True)
        if finding.cure:
            console.print(f"          → {escape(finding.cure)}", highlight=False, soft_wrap=True)
    counts = ", ".join(f"{count} {level}" for level, count in counted(findings).items() if count)
    console.print(f"\n{counts}", highlight=False)


if __name__ == "__main__":
    main()
