"""Lightning's Trainer with this project's habits: one epoch per run, atomic checkpoints, one progress bar."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.strategies import DDPStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from embedtrain.files.checkpoint_folder import CheckpointFolder
from embedtrain.train.callbacks.saving import SaveCheckpoints, StepMetrics, TrainingProgress
from embedtrain.train.callbacks.stopping import StopRequest
from embedtrain.train.checkpoints import HashedCheckpointIO
from embedtrain.train.loggers import KeepVersions
from embedtrain.train.metrics import FileLogger
from embedtrain.train.sharding import Sharded
from embedtrain.types import InputError


def make_trainer(
    *,
    folder: Path,
    loggers: Sequence[Logger] = (),
    stop: StopRequest | None = None,
    max_epochs: int = 1,
    max_steps: int | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    precision: str = "auto",
    accumulate_grad_batches: int = 1,
    gradient_clip_val: float | None = 1.0,
    val_check_interval: float = 0.25,
    checkpoint_every_n_steps: int = 500,
    save_total_limit: int = 2,
    log_every_n_steps: int = 10,
    timeout_minutes: float = 120.0,
    shard: bool = False,
) -> pl.Trainer:
    """The trainer of one run.

    Args:
        folder: the run folder.
        loggers: beside metrics.jsonl, which is always written.
        stop: what signals ask for.
        max_epochs: passes over the rows; the data module lays them end to end in one epoch of Lightning.
        max_steps: optimiser steps; when given it alone decides the length, `max_epochs` only the proportions.
        accelerator: "cpu", "gpu" or "auto".
        devices: processes per node; more than one trains with DDP, or with FSDP2 if `shard`.
        num_nodes: machines.
        precision: Lightning's name of it, or "auto": bf16-mixed where the device is fast at it, else 32-true.
        accumulate_grad_batches: batches per optimiser step. They never contrast with each other.
        gradient_clip_val: largest gradient norm, None for no clipping.
        val_check_interval: optimiser steps between validations when at least 1, else the share of the run.
        checkpoint_every_n_steps: optimiser steps between saves.
        save_total_limit: how many of the newest checkpoints are kept.
        log_every_n_steps: optimiser steps between lines of metrics.jsonl.
        timeout_minutes: how long ranks wait for each other, e.g. while rank 0 evaluates.
        shard: let each rank keep its share of the backbone's weights, gradients and optimiser state (FSDP2)
            instead of all of them, for a backbone that does not fit one device.

    Raises:
        InputError: if a value is outside its range, or the machine has no such device.
    """
    for name, value in {
        "max_epochs": max_epochs,
        "max_steps": 1 if max_steps is None else max_steps,
        "accumulate_grad_batches": accumulate_grad_batches,
        "checkpoint_every_n_steps": checkpoint_every_n_steps,
        "log_every_n_steps": log_every_n_steps,
    }.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if val_check_interval <= 0:
        raise InputError(f"val_check_interval must be above 0, got {val_check_interval}")
    precision = auto_precision(accelerator) if precision == "auto" else precision
    if shard and precision == "16-mixed":
        raise InputError(
            "trainer.shard does not go with precision=16-mixed: each rank would scale its share of the "
            "gradients by itself. Use bf16-mixed or 32-true"
        )
    checkpoints = CheckpointFolder(folder / "checkpoints", save_total_limit)
    batches = accumulate_grad_batches
    by_share = (
        val_check_interval < 1
    )  # the run is one epoch, so Lightning's share of an epoch is that of the run
    try:
        return pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=_strategy(accelerator, devices * num_nodes, timeout_minutes, shard=shard),
            precision=precision,  # type: ignore[arg-type]
            plugins=[HashedCheckpointIO()],
            callbacks=[
                TrainingProgress(),
                StepMetrics(),  # after what notes the speed
                SaveCheckpoints(checkpoints, checkpoint_every_n_steps, stop),
                KeepVersions(folder),
            ],
            logger=[FileLogger(folder), *loggers],
            max_epochs=1,  # the data module lays all epochs end to end, which makes resuming exact
            accumulate_grad_batches=batches,
            gradient_clip_val=gradient_clip_val,
            val_check_interval=float(val_check_interval)
            if by_share
            else round(val_check_interval) * accumulate_grad_batches,
            check_val_every_n_epoch=1 if by_share else None,
            num_sanity_val_steps=0,
            log_every_n_steps=log_every_n_steps,
            use_distributed_sampler=False,  # the stateless sampler slices the global batch itself
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
    except MisconfigurationException as error:  # e.g. a GPU that is not there
        raise InputError(f"{error} Choose another trainer=NAME or other settings of it") from error


def auto_precision(accelerator: str) -> str:
    """bf16-mixed where the device multiplies bfloat16 in hardware, else 32-true.

    A CPU without avx512_bf16 or amx emulates bfloat16, up to 100 times slower than float32.
    """
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    fast = any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return "bf16-mixed" if fast else "32-true"


def _strategy(accelerator: str, ranks: int, timeout_minutes: float, *, shard: bool) -> Strategy | str:
    if ranks == 1 and not shard:
        return "auto"
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    backend, timeout = "nccl" if on_gpu else "gloo", datetime.timedelta(minutes=timeout_minutes)
    if shard:
        return Sharded(ranks, backend, timeout)
    return DDPStrategy(process_group_backend=backend, timeout=timeout)
