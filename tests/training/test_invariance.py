"""Same global batch, any split: ranks, chunks and accumulation give the loss and gradient of one process.

float64, to 1e-10. The cases are those of two_ranks.py: every option of conf/loss and conf/distill,
with every pair of values of the others, and in the slow run with all of them.
"""

import pytest
import torch

from embedtrain.settings.places import config_dir

CONTRASTS = sorted(path.stem for path in config_dir("conf").glob("loss/*.yaml"))
DISTILLS = sorted(path.stem for path in config_dir("conf").glob("distill/*.yaml") if path.stem != "none")
LOSSES = [*CONTRASTS, *(f"infonce + {name}" for name in DISTILLS)]
TOLERANCE = 1e-10
UNDEFINED = {"infonce + espresso": ("full", "grid", "random2d")}  # no cell of the compressed width


def differences(found, expected):
    """Largest difference of loss and gradient."""
    loss, gradient = found
    return max(abs(loss - expected[0]), (gradient - expected[1]).abs().max().item())


@pytest.fixture(scope="module")
def defined(cases):
    return [case for case in cases if case.plan not in UNDEFINED.get(case.loss, ())]


@pytest.mark.parametrize("loss", LOSSES)
def test_ranks_and_chunks_change_nothing(results, defined, two_ranks, loss):
    """{plans} x {no rule, guide, margin} x {whole, chunks of 1, of 3} x {1, 2 ranks} x {1, 2 accumulated}."""
    cases = [case for case in defined if case.loss == loss and case.gather == "gradient"]
    assert {case.plan for case in cases} == set(two_ranks.PLANS) - set(UNDEFINED.get(loss, ()))
    for case in cases:
        expected = results[1][0][case._replace(chunk=None)]
        for world, ranks in results.items():
            for rank in ranks:
                assert differences(rank[case], expected) < TOLERANCE, (case, world)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_case_is_trivial(results, defined, loss):
    """Loss and gradient are far from the tolerance, and rules and accumulation matter."""
    plain = [case for case in defined if case.loss == loss and case.chunk is None]
    for case in plain:
        value, gradient = results[1][0][case]
        assert gradient.abs().max() > 1e-4, case
        assert torch.isfinite(gradient).all()
        assert abs(value) > 1e-4, case


def test_rules_take_out_negatives_in_these_cases(results, two_ranks):
    for plan in two_ranks.PLANS:
        losses = {
            rule: results[1][0][("infonce", plan, rule, None, 1, "gradient", 0)][0]
            for rule in two_ranks.RULES
        }
        assert len(set(losses.values())) == len(losses), losses


def test_accumulation_is_the_mean_of_the_batches(results, two_ranks):
    case = two_ranks.Case("infonce", "fixed_pairs", "none", None, 1)
    first, both = results[1][0][case], results[1][0][case._replace(accumulate=2)]
    second = two_ranks.Runner("infonce", 0, 1)
    second.batches = second.batches[::-1]
    value, gradient = second.run(case)
    assert both[0] == pytest.approx((first[0] + value) / 2, abs=TOLERANCE)
    torch.testing.assert_close(both[1], (first[1] + gradient) / 2, rtol=0, atol=TOLERANCE)
