"""Mixtures under Lightning on two real ranks: one global batch, also where the number of ranks changes."""

from pathlib import Path

import pytest
from processes import module_at
from small_runs import write_rows

SCRIPT = Path(__file__).with_name("mixture_ranks.py")
ranks = module_at(SCRIPT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three datasets; their features trained on one rank, and then on two."""
    root = tmp_path_factory.mktemp("mixture")
    for name, count in (("a", 60), ("b", 30), ("c", 40)):
        rows = [
            {
                "query": f"q{name}{i}",
                "positive": "p" * (i % 17) + f"{name}{i}",
                "negatives": [f"n{name}{i}{k}" for k in range(4)],
            }
            for i in range(count)
        ]
        write_rows(root / f"{name}.jsonl", rows)
    return root


@pytest.fixture(scope="module")
def seen(on_ranks, folder):
    """Feature -> (on one rank, the two ranks, the two ranks after one had begun)."""
    alone = {
        feature: ranks.run(folder, feature, 1, save_to=folder / f"one {feature}.ckpt")
        for feature in ranks.FEATURES
    }
    both = on_ranks(SCRIPT, "main", folder)
    return {
        feature: (alone[feature], [one[feature][0] for one in both], [one[feature][1] for one in both])
        for feature in alone
    }


@pytest.mark.parametrize("feature", ranks.FEATURES)
def test_two_ranks_share_the_global_batches_of_one(seen, feature):
    alone, both, _ = seen[feature]
    assert len(alone) > ranks.SAVED_AFTER + 3
    for expected, first, second in zip(alone, *both, strict=True):
        assert first + second == expected
        rows = [{row for row, *_ in part} for part in (first, second)]
        assert not rows[0] & rows[1]
        assert len(rows[0]) == len(rows[1]) == 4
        if feature != "mixed":
            assert len({task for _, task, _ in first + second}) == 1


@pytest.mark.parametrize("feature", ranks.FEATURES)
def test_two_ranks_go_on_where_one_stopped(seen, feature):
    alone, _, resumed = seen[feature]
    joined = [first + second for first, second in zip(*resumed, strict=True)]
    assert joined == alone[ranks.SAVED_AFTER :]


@pytest.mark.parametrize("feature", ranks.FEATURES)
def test_one_rank_goes_on_where_two_stopped(seen, folder, feature):
    resumed = ranks.run(folder, feature, 1, start_from=folder / f"two {feature}.ckpt")
    assert resumed == seen[feature][0][ranks.SAVED_AFTER :]
