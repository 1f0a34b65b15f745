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
from embedtrain.settings.commands import TrainerSettings
from embedtrain.training.callbacks.saving import FolderStays, SaveCheckpoints, StepMetrics, TrainingProgress
from embedtrain.training.callbacks.stopping import StopRequest
from embedtrain.training.checkpoints import HashedCheckpointIO
from embedtrain.training.loggers import KeepVersions
from embedtrain.training.metrics import FileLogger
from embedtrain.training.sharding import Sharded
from embedtrain.types import InputError


def make_trainer(
    settings: TrainerSettings,
    *,
    folder: Path,
    loggers: Sequence[Logger] = (),
    stop: StopRequest | None = None,
) -> pl.Trainer:
    """The trainer of one run.

    Args:
        settings: how it trains.
        folder: the run folder.
        loggers: beside metrics.jsonl, which is always written.
        stop: what signals ask for.

    Raises:
        InputError: if Lightning refuses a value, or the machine has no such device.
    """
    accelerator, batches = settings.accelerator, settings.accumulate_grad_batches
    precision = auto_precision(accelerator) if settings.precision == "auto" else settings.precision
    interval = settings.val_check_interval
    by_share = interval < 1  # the run is one epoch, so Lightning's share of one is the run's
    try:
        return pl.Trainer(
            accelerator=accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=_strategy(settings),
            precision=precision,  # type: ignore[arg-type]
            plugins=[HashedCheckpointIO()],
            callbacks=[
                TrainingProgress(),
                FolderStays(folder),
                StepMetrics(),  # after what notes the speed
                SaveCheckpoints(
                    CheckpointFolder(folder / "checkpoints", settings.save_total_limit),
                    settings.checkpoint_every_n_steps,
                    stop,
                ),
                KeepVersions(folder),
            ],
            logger=[FileLogger(folder), *loggers],
            max_epochs=1,  # the data module lays all epochs end to end, which makes resuming exact
            accumulate_grad_batches=batches,
            gradient_clip_val=settings.gradient_clip_val,
            val_check_interval=float(interval) if by_share else round(interval) * batches,
            check_val_every_n_epoch=1 if by_share else None,
            num_sanity_val_steps=0,
            log_every_n_steps=settings.log_every_n_steps,
            use_distributed_sampler=False,  # the stateless sampler slices the global batch itself
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:  # e.g. a GPU that is not there
        raise InputError(f"trainer: {error} Choose another trainer=NAME or other settings of it") from error


def auto_precision(accelerator: str) -> str:
    """bf16-mixed where the device multiplies bfloat16 in hardware, else 32-true.

    On a CPU that is one with AMX. With avx512_bf16 alone its products took 1.8 times as long as float32's (80
    against 145 GFLOP a second on a core that has it), and without either up to 100 times.
    """
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)() else "32-true"


def _strategy(settings: TrainerSettings) -> Strategy | str:
    ranks, accelerator = settings.devices * settings.num_nodes, settings.accelerator
    if ranks == 1 and not settings.shard:
        return "auto"
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    backend = "nccl" if on_gpu else "gloo"
    timeout = datetime.timedelta(minutes=settings.timeout_minutes)
    if settings.shard:
        return Sharded(ranks, backend, timeout)
    return DDPStrategy(process_group_backend=backend, timeout=timeout)
