import pytest
import torch
from golden import golden
from torch.nn.functional import normalize

from embedtrain.evaluation.sweeping.funnel import Funnel, cascade, funnel_of, named_funnel, rerank, shortlist
from embedtrain.types import InputError, SubModel

CASE, CONFIG = golden("funnel_retrieval")


def units(dim):
    return normalize(CASE["queries"][:, :dim], dim=1), normalize(CASE["db"][:, :dim], dim=1)


def test_the_shortlist_is_the_golden_one():
    found = shortlist(*units(CONFIG["retrieval_dim"]), CASE["initial_neighbors"].shape[1])
    assert torch.equal(found, CASE["initial_neighbors"])


def test_the_cascade_is_the_golden_one_and_leaves_its_input_alone():
    before = CASE["initial_neighbors"].clone()
    stages = [units(dim) for dim in CONFIG["rerank_dims"]]
    for _ in range(2):  # a second run over the same neighbours
        found, _ = cascade(CASE["initial_neighbors"], CONFIG["shortlists"], stages)
        assert torch.equal(found, CASE["funnel_neighbors"])
    assert torch.equal(CASE["initial_neighbors"], before)


def test_one_reranking_is_the_golden_one():
    single = CONFIG["single"]
    found, similarity = rerank(CASE["initial_neighbors"], single["shortlist"], *units(single["dim"]))
    assert torch.equal(found, CASE["single_rerank_neighbors"])
    assert (similarity.diff(dim=1) <= 0).all()


def test_the_metrics_of_the_cascade_are_the_golden_ones():
    stages = [units(dim) for dim in CONFIG["rerank_dims"]]
    found, _ = cascade(CASE["initial_neighbors"], CONFIG["shortlists"], stages)
    hit = (CASE["db_labels"][found] == CASE["query_labels"][:, None]).double()
    k = hit.shape[1]
    precision = hit.cumsum(1) / torch.arange(1, k + 1)
    metrics = [
        ((precision * hit).sum(1) / k).mean(),  # divided by k, not by the number of hits
        hit.mean(),
        hit.sum(1).mean() / 1300,
        hit.any(dim=1).double().mean(),
    ]
    assert torch.stack(metrics).numpy() == pytest.approx(CASE["metrics_funnel"].numpy(), abs=1e-12)


def test_a_shortlist_of_everything_is_a_full_search():
    everything = shortlist(*units(2), len(CASE["db"]))
    found, _ = cascade(everything, [len(CASE["db"])], [units(32)])
    assert torch.equal(found[:, :50], shortlist(*units(32), 50))


def test_the_cost_is_the_first_stage_on_all_and_the_others_on_what_is_kept():
    funnel = Funnel((SubModel(2, 32), SubModel(4, 64), SubModel(6, 384)), (200, 50))
    assert funnel.cost(10_000) == 10_000 * 32 + 200 * 64 + 50 * 384
    assert funnel.share(10_000) == pytest.approx(funnel.cost(10_000) / 3_840_000)
    assert funnel.cost(100) == 100 * 32 + 100 * 64 + 50 * 384
    assert str(funnel) == "funnel(L2_D32>200>L4_D64>50>L6_D384)"


def test_the_yaml_gives_the_funnel():
    assert funnel_of({"cells": [[2, 32], [6, 384]], "keep": [200]}) == Funnel(
        (SubModel(2, 32), SubModel(6, 384)), (200,)
    )


def test_a_name_gives_the_funnel_back():
    funnel = Funnel((SubModel(2, 32), SubModel(4, 64), SubModel(6, 384)), (200, 50))
    assert named_funnel(str(funnel)) == funnel
    assert (funnel.layer, funnel.dim, funnel.dtype) == (6, 384, str(funnel))


@pytest.mark.parametrize(
    "name", ["float32", "int8", "funnel()", "funnel(L2_D32)", "funnel(L2_D32>a>L6_D384)"]
)
def test_other_names_are_no_funnels(name):
    assert named_funnel(name) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"cells": [[2, 32], [6, 384]]}, "a funnel is"),
        ({"cells": [[2, 32]], "keep": []}, "two or more"),
        ({"cells": [[2, 32], [6]], "keep": [5]}, "two or more of"),
        ({"cells": [[2, 32], [6, 384]], "keep": [200, 50]}, "2 cells need 1 counts in keep"),
        ({"cells": [[1, 8], [2, 32], [6, 384]], "keep": [50, 200]}, "may not grow"),
        ({"cells": [[2, 32], [6, 384]], "keep": [0]}, "must be positive"),
    ],
)
def test_a_funnel_that_is_none_is_refused(row, message):
    with pytest.raises(InputError, match=message):
        funnel_of(row)
