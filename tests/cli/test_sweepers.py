"""Optimising sweepers of Hydra, in environments of their own, drive runs for real."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml
from small_runs import without

import embedtrain


@pytest.mark.slow
def test_optuna_finds_the_best_of_its_trials(small_run, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    site = min((tmp_path / "venv").glob("[lL]ib/**/site-packages"))
    (site / "here.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [python, "-m", "pip", "install", "-q", "hydra-optuna-sweeper"]
    if subprocess.run(install, check=False, capture_output=True).returncode:
        pytest.skip("hydra-optuna-sweeper cannot be installed here")
    sweeper = "hydra/sweeper=optuna hydra.sweeper.direction=maximize hydra.sweeper.n_trials=2".split()
    words = ["--multirun", *sweeper, "hydra.sweeper.n_jobs=1", "name=trial_${hydra:job.num}"]
    words += ["optim.lr=tag(log,interval(1e-5,1e-3))", "optimized_metric=val/mean", "data.validation_rows=16"]
    words += [*without(small_run, "optim.lr"), "trainer.max_steps=2"]
    command = [python, "-m", "embedtrain.cli.train", *words]
    places = {"PYTHONPATH": str(Path(embedtrain.__file__).parents[1]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=places, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    best = yaml.safe_load((tmp_path / "runs/multirun/optimization_results.yaml").read_text())
    assert best["best_params"].keys() == {"optim.lr"}
    assert 0 < best["best_value"] <= 1
    names = {path.name for path in (tmp_path / "runs").iterdir()}  # and locks, whose names begin with a point
    assert {name for name in names if name[0] != "."} == {"multirun", "trial_0", "trial_1"}
