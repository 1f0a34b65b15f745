"""The names that people know from elsewhere, or from before, lead to those that exist."""

import re
from pathlib import Path

import pytest

from embedtrain.settings.names import ELSEWHERE, OLD_NAMES, nearest
from embedtrain.settings.places import config_dir

PAGE = (Path(__file__).parents[2] / "docs/configuration.md").read_text("utf-8")
CURES = sorted({*ELSEWHERE.values(), *OLD_NAMES.values()} - {"temperature=1/scale"})


@pytest.mark.parametrize("cure", CURES)
def test_a_cure_names_what_exists(cure):
    for word in re.findall(r"[\w.]+(?:=[\w-]+)?", cure.partition(",")[0].replace(" or ", " ")):
        key, _, value = word.partition("=")
        if value and (config_dir("conf") / key).is_dir():
            assert (config_dir("conf") / key / f"{value}.yaml").is_file()
        elif key != "and":
            assert f"`{key.rpartition('.')[2]}`" in PAGE, key


def test_nearest_is_the_new_name_the_name_here_or_the_closest():
    keys = ["loss", "trainer", "optim", "name"]
    assert nearest("contrast", keys) == "; it is now 'loss'."
    assert nearest("learning_rate", keys) == "; here it is 'optim.lr'."
    assert nearest("learning_rate", ["model", "layer"]) == "."  # a command without `optim`
    assert nearest("accumulate", ["devices"], "trainer.accumulate") == (
        "; it is now 'trainer.accumulate_grad_batches'."
    )
    assert nearest("CoSENTLoss", ["cosent"], "loss=CoSENTLoss") == "; here it is 'loss=cosent'."
    assert nearest("infoncee", ["infonce", "cosent"]) == "; did you mean 'infonce'?"
    assert nearest("zzz", ["infonce", "cosent"]) == "."
