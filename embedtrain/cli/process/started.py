"""How many processes the environment has started, and whether that is what a run asks for."""

from __future__ import annotations

from collections.abc import Mapping

from embedtrain.settings.commands import TrainerSettings, TrainSettings
from embedtrain.types import InputError


def check_processes(
    trainer: TrainerSettings, environment: Mapping[str, str], *, launcher: str | None
) -> None:
    """Refuse a run whose `trainer.devices` and `num_nodes` are not what has been started for it.

    Args:
        trainer: of the run.
        environment: of this process.
        launcher: Hydra's, where the run is a job of a sweep; None for a run by itself.

    Raises:
        InputError: saying what was started, what is asked for, and what would do.
    """
    devices, nodes = trainer.devices, trainer.num_nodes
    if launcher is not None and "submitit_slurm" not in launcher and devices * nodes > 1:
        raise InputError(
            f"a sweep with trainer.devices={devices} trainer.num_nodes={nodes} would start the whole sweep "
            "once per rank. Use hydra/launcher=submitit_slurm with hydra.launcher.tasks_per_node=DEVICES and "
            "hydra.launcher.nodes=NODES, which gives each job its own processes, or trainer.devices=1"
        )
    started = started_by(environment)
    if started is None:
        return
    by, count = started
    if launcher is not None and by == "torchrun":
        raise InputError(
            "torchrun would start the whole sweep once per rank: start a sweep without it, or each run by "
            "itself"
        )
    if count != devices * nodes:
        raise InputError(
            f"{by} has started {count} processes and the run asks for trainer.devices={devices} x "
            f"trainer.num_nodes={nodes}: make their product {count}, or start another number"
        )


def requires_whole_weights(settings: TrainSettings) -> None:
    """Refuse what runs the model in training on some ranks alone, where no rank holds all of its weights.

    Raises:
        InputError: naming it.
    """
    parts = {"mining": settings.mining, "eval_during": settings.eval_during}
    found = [name for name, part in parts.items() if part is not None]
    if settings.trainer.shard and found:
        raise InputError(
            f"{' and '.join(found)}: with trainer.shard=true no rank holds the whole model while it "
            f"trains. Use {' '.join(f'{name}=none' for name in found)}, or trainer.shard=false"
        )


def started_by(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Who has started the processes, and how many; None where this one was started by itself.

    An interactive SLURM session (a job named bash or interactive) counts as none, as for Lightning.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun", int(environment["WORLD_SIZE"])
    interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if "SLURM_NTASKS" in environment and "SLURM_PROCID" in environment and not interactive:
        return "SLURM", int(environment["SLURM_NTASKS"])
    return None
