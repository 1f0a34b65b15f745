"""What many tests rely on: covering subsets of cases, processes that fork, ranks that die."""

import importlib
from itertools import combinations, product
from pathlib import Path

import pytest
import warm
from pairwise import pairwise


def pairs(cases):
    return {pair for case in cases for pair in combinations(enumerate(case), 2)}


@pytest.mark.parametrize("axes", [(2, 2), (5, 3, 3, 2), (16, 5, 3, 3, 2), (4, 1, 3)])
def test_a_pairwise_subset_has_every_pair_of_values_in_few_cases(axes):
    cases = list(product(*map(range, axes)))
    subset = pairwise(cases)
    assert pairs(subset) == pairs(cases)
    assert set(subset) <= set(cases)
    assert len(set(subset)) == len(subset)
    first, second = sorted(axes)[-2:]
    assert first * second <= len(subset) <= 1.5 * first * second
    assert pairwise(cases) == subset


def test_a_pairwise_subset_of_a_product_with_holes():
    cases = [case for case in product("abc", "xy", (1, 2, 3)) if case[:2] != ("a", "x")]
    assert pairs(pairwise(cases)) == pairs(cases)
    assert pairwise([]) == []


def test_what_forked_processes_need_is_imported_before():
    for name in warm.IMPORTED:
        importlib.import_module(name)


def one_dies(rank):
    """A rank that ends while the other waits for it."""
    from processes import joined

    with joined():
        if rank == 1:
            raise RuntimeError("out of luck")


def one_outlives(rank):
    """What trains is still there when the group ends: a deadlock in some runs of torch."""
    from processes import joined
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    with joined():
        model = DistributedDataParallel(nn.Linear(2, 2))
    return model


def test_a_rank_that_holds_what_trains_is_refused_before_its_group_ends(on_ranks):
    with pytest.raises(AssertionError, match="1 DistributedDataParallel outlive their group"):
        on_ranks(Path(__file__), "one_outlives")


def test_a_rank_that_dies_ends_the_others_with_its_output(on_ranks):
    with pytest.raises(AssertionError, match="out of luck"):
        on_ranks(Path(__file__), "one_dies")
