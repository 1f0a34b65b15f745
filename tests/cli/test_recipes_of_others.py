"""Recipes that somebody handed over: they choose settings, and run no code."""

import pytest
import yaml

from embedtrain.settings.places import config_dir

CODE = {"_target_": "subprocess.run", "args": ["touch", "ran"]}
LIGHTNING = {"_target_": "pytorch_lightning.cli.instantiate_class", "args": [], "init": {"class_path": "x"}}
HOSTILE = {
    "a class of others": {"loss": CODE},
    "a function that builds anything": {"optim": LIGHTNING},
    "a part inside a part": {"loss": {"temperature": LIGHTNING}},
    "a part in a list": {"negatives": {"rules": [LIGHTNING]}},
    "a part of a stage": {"stages": [{"name": "a", "optim": LIGHTNING}]},
    "a callback of Hydra": {"hydra": {"callbacks": {"x": CODE}}},
    "another launcher": {"hydra": {"launcher": CODE}},
    "another sweeper": {"hydra": {"sweeper": CODE}},
    "a handler of logs": {"hydra": {"job_logging": {"handlers": {"x": {"()": "subprocess.run"}}}}},
    "a class of handlers": {"hydra": {"hydra_logging": {"handlers": {"x": {"class": "os.system"}}}}},
    "a stream of logs": {"hydra": {"job_logging": {"handlers": {"x": {"stream": "ext://os.environ"}}}}},
    "a variable": {"hydra": {"job": {"env_set": {"LD_PRELOAD": "x.so"}}}},
    "a copied variable": {"hydra": {"job": {"env_copy": ["HOME"]}}, "seed": 1},
    "a secret": {"output_root": "${oc.env:HF_TOKEN}"},
}


@pytest.mark.parametrize("many", [False, True], ids=["run", "multirun"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_recipe_ends_with_one_line(kind, many, tmp_path, monkeypatch, error_of, small_run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    recipe = {"defaults": ["train", "_self_"], **HOSTILE[kind]}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    words = [
        "--config-dir",
        tmp_path,
        "--config-name",
        "theirs",
        f"hydra.searchpath=[file://{config_dir('conf')}]",
    ]
    message = error_of("train", *(["--multirun"] if many else []), *words, *small_run, "name=x")
    assert "hf_secret" not in message
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "runs").exists()
