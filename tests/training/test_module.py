"""What a module of training refuses."""

from types import SimpleNamespace

import pytest
from torch import nn

from embedtrain.training.module import TrainModule
from embedtrain.training.optim import AdamW
from embedtrain.types import InputError, SubModel, Weighted


class Late:
    """A plan that names one layer and trains another once training has begun."""

    sub_models = (SubModel(2, 4),)
    begun = False

    def __call__(self, step):
        return (Weighted(SubModel(1 if self.begun else 2, 4), 1.0),)


def module_of(plan):
    return TrainModule(nn.Linear(1, 1), SimpleNamespace(module=None), plan, AdamW(), total_steps=1)


def test_a_layer_that_the_plan_did_not_name_is_refused():
    plan = Late()
    module = module_of(plan)
    plan.begun = True
    with pytest.raises(InputError, match="step 0 trains layer 1, and its `sub_models` have none there"):
        module.training_step(None, 0)


def test_a_checkpoint_of_an_older_version_is_refused():
    module = module_of(Late())
    module.on_load_checkpoint({"state_dict": {}})  # weights alone
    with pytest.raises(InputError, match="an older version of embedtrain wrote it"):
        module.on_load_checkpoint({"state_dict": {}, "optimizer_states": []})
