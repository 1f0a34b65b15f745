import numpy as np
import pytest
from scipy import stats

from embedtrain.evaluation.comparing.subset import predictability, select_subset
from embedtrain.types import InputError


def redundant(models=40, copies=4, seed=0):
    """Three abilities; `copies` noisy measurements of the first two, one of the third."""
    generator = np.random.default_rng(seed)
    ability = generator.normal(size=(models, 3))
    columns, names = [], []
    for kind, count in ((0, copies), (1, copies), (2, 1)):
        for number in range(count):
            columns.append(ability[:, kind] + 0.02 * generator.normal(size=models))
            names.append(f"{'abc'[kind]}{number}")
    return np.column_stack(columns), names


def test_copies_go_before_what_only_one_task_measures():
    scores, names = redundant()
    found = select_subset(scores, names, floor=0.95)
    dropped = [step.dropped for step in found.steps]
    assert "c0" not in dropped[:4]
    assert {name[0] for name in found.kept} >= {"a", "b"}
    assert len(found.kept) < len(names) / 2


def test_the_kept_tasks_rank_as_said_and_every_step_stays_above_the_floor():
    scores, names = redundant(seed=1)
    found = select_subset(scores, names, floor=0.9)
    columns = [names.index(name) for name in found.kept]
    mean, whole = scores[:, columns].mean(axis=1), scores.mean(axis=1)
    assert found.spearman == pytest.approx(stats.spearmanr(mean, whole)[0])
    assert found.kendall == pytest.approx(stats.kendalltau(mean, whole)[0])
    assert all(step.spearman >= 0.9 for step in found.steps)
    assert set(found.kept) == set(names) - {step.dropped for step in found.steps}


def test_a_higher_floor_keeps_more_tasks():
    scores, names = redundant(seed=2)
    kept = [len(select_subset(scores, names, floor).kept) for floor in (0.5, 0.95, 1.0)]
    assert kept[0] < kept[1] < kept[2]


def test_a_copy_is_predictable_and_noise_is_not():
    scores, _ = redundant(models=200)
    noise = np.random.default_rng(5).normal(size=200)
    with_noise = np.column_stack([scores, noise])
    assert predictability(with_noise, 0) > 0.95
    assert predictability(with_noise, with_noise.shape[1] - 1) < 0.3


def test_prediction_leaves_the_model_out():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(8, 12))  # more tasks than models: a plain fit would be perfect
    assert np.mean([predictability(scores, column) for column in range(12)]) < 0.6


def test_a_task_that_tells_nothing_goes_first():
    scores, names = redundant()
    flat = np.column_stack([scores, np.full(len(scores), 0.5)])
    assert select_subset(flat, [*names, "flat"]).steps[0].dropped == "flat"


@pytest.mark.parametrize(
    ("scores", "names", "floor", "message"),
    [
        (np.zeros((2, 3)), ["a", "b", "c"], 0.9, "at least 3 models"),
        (np.zeros((4, 3)), ["a", "b"], 0.9, "2 task names"),
        (np.zeros((4, 2)), ["a", "b"], 0.9, "no ranking to keep"),
        (np.eye(4), list("abcd"), 1.5, r"floor must be in 0..1, got 1.5"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(scores, names, floor, message):
    with pytest.raises(InputError, match=message):
        select_subset(scores, names, floor)
