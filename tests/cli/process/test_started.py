"""Sweeps, torchrun and SLURM: one process tree per run, of the size it asks for."""

from dataclasses import replace

import pytest
from processes import finish

from embedtrain.cli.process.started import check_processes, requires_whole_weights
from embedtrain.settings.commands import DataSettings, TrainerSettings, TrainSettings
from embedtrain.settings.component import Component
from embedtrain.types import InputError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}
SLURM = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_JOB_NAME": "train"}
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher submitit_slurm"


def settings(**more):
    part = Component("embedtrain.training.optim.AdamW")
    groups = dict.fromkeys(("backbone", "step", "plan", "loss", "objective", "optim"), part)
    return TrainSettings(name="x", data=DataSettings(train="rows.jsonl"), **groups, **more)


def asks_for(devices, nodes=1):
    return TrainerSettings(devices=devices, num_nodes=nodes)


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "launcher"),
    [
        (1, 1, {}, None),
        (2, 1, {}, None),  # starts its own
        (2, 1, TORCHRUN, None),
        (4, 2, SLURM, None),
        (4, 2, SLURM, SUBMITIT),
        (1, 1, {**SLURM, "SLURM_JOB_NAME": "bash"}, None),
        (1, 1, {}, JOBLIB),
    ],
)
def test_what_agrees_runs(devices, nodes, environment, launcher):
    check_processes(asks_for(devices, nodes), environment, launcher=launcher)


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "launcher", "message"),
    [
        (1, 1, TORCHRUN, None, r"torchrun has started 2 processes and the run asks for trainer.devices=1 x"),
        (4, 1, SLURM, None, r"SLURM has started 8 processes .*make their product 8"),
        (2, 1, {}, BASIC, r"trainer.devices=2 .*once per rank.*submitit_slurm"),
        (1, 2, {}, JOBLIB, r"trainer.num_nodes=2 would start"),
        (1, 1, TORCHRUN, BASIC, r"torchrun would start the whole sweep once per rank"),
    ],
)
def test_what_does_not_agree_is_refused(devices, nodes, environment, launcher, message):
    with pytest.raises(InputError, match=message):
        check_processes(asks_for(devices, nodes), environment, launcher=launcher)


def test_a_sweep_with_joblib_makes_a_run_of_each_job(processes, small_run, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["name=run_${hydra:job.num}", "seed=0,1", f"output_root={tmp_path}", "trainer.max_steps=2"]
    more = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "--multirun"]
    finish(processes.command("train", [*small_run, *words, *more]))
    for number in range(2):
        assert (tmp_path / f"run_{number}/model/model.safetensors").exists()


@pytest.mark.parametrize("name", ["mining", "eval_during"])
def test_ranks_that_share_the_weights_do_not_run_the_model_alone(name):
    sharded = settings(trainer=TrainerSettings(shard=True))
    requires_whole_weights(sharded)
    mistaken = replace(sharded, **{name: Component("embedtrain.mining.refresh.Refresh")})
    with pytest.raises(InputError, match=rf"{name}: with trainer.shard=true no rank holds .*{name}=none"):
        requires_whole_weights(mistaken)
    requires_whole_weights(replace(mistaken, trainer=TrainerSettings()))
