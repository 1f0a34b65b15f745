"""The command of a cure: the run's own with other settings."""

import pytest

from embedtrain.files.measured.metrics import Logged
from embedtrain.files.measured.weights import Moved, Weights
from embedtrain.reporting.verdict.facts import Facts, next_name
from embedtrain.reporting.verdict.judge import judged
from embedtrain.reporting.verdict.learning import learning_rate, temperature

WORDS = [
    "recipe=mine",
    "data.train='my rows.jsonl'",
    "name=a",
    "optim.lr=1e-3",
    "plan=dims",
    "plan.dims=[8,16]",
]


def command(words=WORDS, **changes):
    return Facts("a", 1, words=words).again({key.replace("__", "."): value for key, value in changes.items()})


def test_a_cure_is_the_command_with_what_changes_at_its_end():
    start = """embedtrain-train recipe=mine 'data.train='"'"'my rows.jsonl'"'"''"""
    assert command(optim__lr=2e-5) == f"{start} plan=dims 'plan.dims=[8,16]' name=a-2 optim.lr=2e-05"


def test_settings_of_an_option_that_is_exchanged_go():
    words = command(plan="fixed_pairs", plan__pairs=[[1, 8], [2, 16]])
    assert "plan=dims" not in words
    assert "plan.dims" not in words
    assert words.endswith("optim.lr=1e-3 name=a-2 plan=fixed_pairs 'plan.pairs=[[1,8],[2,16]]'")


def test_from_python_a_cure_is_keywords():
    said = command(words=(), optim__lr=2e-5, plan="fixed_pairs", plan__weights=[1, 2])
    assert said == (
        "embedtrain.train with the same keywords and name='a-2', optim={'lr': 2e-05}, "
        "plan={'option': 'fixed_pairs', 'weights': [1, 2]}"
    )


@pytest.mark.parametrize(("name", "after"), [("a", "a-2"), ("a-2", "a-3"), ("-1", "-1-2"), ("a-b", "a-b-2")])
def test_names_count_on(name, after):
    assert next_name(name) == after


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, "learning_rate_high"),
        ({"queue": {"size": 9}}, None),
        ({"mining": {"every_n_steps": 5}}, None),
        ({"plan": {"_target_": "embedtrain.objective.plan.Scheduled"}}, None),
        ({"queue": None, "mining": None, "plan": {"_target_": "embedtrain.objective.plan.Full"}},
         "learning_rate_high"),
    ],
)  # fmt: skip
def test_a_loss_that_rises_as_its_problem_grows_says_nothing_of_the_rate(more, found):
    rising = [Logged(n, {"train/loss": float(n + 1)}) for n in range(8)]
    finding = learning_rate(Facts("a", 1, metrics=rising, settings={"optim": {"lr": 1e-4}} | more))
    assert (None if finding is None else finding.name) == found


def test_the_block_that_moved_most_is_no_pooling_that_began_near_zero():
    groups = (Moved("2", 9, 0.01, 0.1, 1.0), Moved("pooling", 9, 0.9995, 0.1, 1.0))
    weights = Weights("a", 1, groups, (), 0)
    assert "block 2 most (by 1.00% of its size)" in judged(Facts("a", 1, weights=weights)).lines[0]


def test_a_curve_is_the_first_and_last_quarter():
    facts = Facts("a", 1, metrics=[Logged(n, {"train/loss": float(8 - n)}) for n in range(8)])
    assert facts.curve("train/loss") == (7.5, 1.5)
    assert facts.curve("train/loss").fall == 6 / 7.5
    assert facts.curve("val/mean") is None


def test_a_learnt_temperature_is_that_of_the_last_line_that_has_one():
    learnt = [Logged(n, {"train/loss.log_inverse": value}) for n, value in enumerate((3.0, -2.0))]
    found = temperature(Facts("a", 3, words=WORDS, metrics=[*learnt, Logged(2, {"val/mean": 0.5})]))
    assert "the temperature became 7.39" in found.text
