import math
from collections import Counter
from pathlib import Path

import pytest

from embedtrain.objective import plan
from embedtrain.objective.plan.draw import draw, generator_at
from embedtrain.objective.plan.sizes import even_pairs, halved_dims
from embedtrain.types import InputError, SubModel, Weighted

MODEL = {"num_layers": 4, "width": 16}


def every_plan():
    return [
        plan.Full(**MODEL),
        plan.Dims([4, 16], **MODEL),
        plan.FixedPairs([[1, 4], [4, 16]], **MODEL),
        plan.Grid(**MODEL),
        plan.Grid([2, 4], [4, 16], per_step=1, **MODEL),
        plan.Random2d([4, 8, 16], **MODEL),
        plan.Random2d([4, 8, 16], layers_per_step=-1, first_layer=0, **MODEL),
        plan.Espresso(4, **MODEL),
        plan.Espresso(4, layer_offset=0, **MODEL),
        plan.TwoDMSE([4, 8], **MODEL),
    ]


@pytest.mark.parametrize("chooser", every_plan(), ids=lambda chooser: type(chooser).__name__)
def test_every_plan_keeps_the_last_layer_and_what_it_announced(chooser):
    assert list(chooser.sub_models) == sorted(set(chooser.sub_models))
    trained = set()
    for step in range(60):
        chosen = chooser(step)
        assert chosen == chooser(step)
        assert max(item.sub.layer for item in chosen) == 4
        subs = [item.sub for item in chosen]
        assert len(set(subs)) == len(subs)
        trained |= set(subs)
    assert {sub for sub in trained if sub.layer > 0} == set(chooser.sub_models)  # layer 0 is no cut


def test_full_trains_the_uncut_model():
    assert plan.Full(**MODEL)(3) == (Weighted(SubModel(4, 16), 1.0),)


def test_dims_keep_their_weights_when_sorted():
    chosen = plan.Dims([16, 4], [0.5, 2], **MODEL)(0)
    assert chosen == (Weighted(SubModel(4, 4), 2.0), Weighted(SubModel(4, 16), 0.5))


def test_dims_without_the_width_are_trained_with_a_warning(caplog):
    plan.Dims([4, 8], **MODEL)
    assert "leave out 16: coordinates past 8 train nothing" in caplog.text


def test_fixed_pairs_keep_their_weights_when_sorted():
    chosen = plan.FixedPairs([[4, 16], [1, 4], (2, 4)], [1, 2, 3], **MODEL)(0)
    assert [(*item.sub, item.weight) for item in chosen] == [(1, 4, 2.0), (2, 4, 3.0), (4, 16, 1.0)]


@pytest.mark.parametrize(
    ("num_layers", "width", "pairs"),
    [
        (12, 768, [(2, 32), (4, 64), (6, 128), (8, 256), (10, 512), (12, 768)]),
        (6, 384, [(1, 32), (2, 64), (3, 64), (4, 128), (5, 256), (6, 384)]),
        (30, 576, [(5, 32), (10, 64), (15, 128), (20, 256), (25, 256), (30, 576)]),
        (2, 16, [(1, 2), (2, 16)]),
        (1, 7, [(1, 7)]),
    ],
)
def test_default_pairs_are_even_in_layers_and_geometric_in_dims(num_layers, width, pairs):
    assert [tuple(sub) for sub in plan.FixedPairs(num_layers=num_layers, width=width).sub_models] == pairs


def test_default_sizes_fit_every_model():
    for num_layers in range(1, 40):
        for width in (1, 2, 7, 31, 32, 100, 384, 1000, 4096):
            pairs = even_pairs(SubModel(num_layers, width))
            assert len({sub.layer for sub in pairs}) == len(pairs)
            assert [sub.dim for sub in pairs] == sorted(sub.dim for sub in pairs)
            assert all(1 <= sub.layer <= num_layers and 1 <= sub.dim <= width for sub in pairs)
            assert pairs[-1] == (num_layers, width)
            assert list(halved_dims(width)) == sorted(set(halved_dims(width)))
            assert halved_dims(width)[-1] == width
            assert halved_dims(width)[0] >= 1


def test_default_dims_halve_the_width():
    assert halved_dims(768) == (48, 96, 192, 384, 768)
    assert [sub.dim for sub in plan.Dims(num_layers=6, width=384).sub_models] == [48, 96, 192, 384]


def test_grid_weighs_layer_times_dim():
    chosen = plan.Grid([4, 2], [16, 4], None, [1, 3], [1, 5], **MODEL)(0)
    found = [(*item.sub, item.weight) for item in chosen]
    assert found == [(2, 4, 15.0), (2, 16, 3.0), (4, 4, 5.0), (4, 16, 1.0)]


def test_grid_draws_cells_evenly_and_always_the_full_model():
    chooser = plan.Grid([1, 2, 3, 4], [4, 8, 16], per_step=3, **MODEL)
    seen = Counter()
    for step in range(1100):
        chosen = chooser(step)
        assert len(chosen) == 4
        assert chosen[-1] == Weighted(SubModel(4, 16), 1.0)
        seen.update(item.sub for item in chosen[:-1])
    assert len(seen) == 11
    assert min(seen.values()) > 240  # 300 expected, standard deviation 15
    assert max(seen.values()) < 360


def test_random2d_draws_a_dim_for_each_layer_anew():
    chooser = plan.Random2d([4, 8, 16], **MODEL)
    layers, same_dim = Counter(), 0
    for step in range(900):
        (student, student_weight), (last, last_weight) = chooser(step)
        assert last.layer == 4
        assert (student_weight, last_weight) == (1.0, 1.0)
        layers[student.layer] += 1
        same_dim += student.dim == last.dim
    assert set(layers) == {1, 2, 3}
    assert min(layers.values()) > 240
    assert 240 < same_dim < 360  # a third: the two draws are independent


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [
        ("uniform", [1, 1, 1, 1]),
        ("log", [1, 0.5906161091496412, 0.4765053580405043, 0.41905978419640516]),
        ("linear", [1, 1 / 2, 1 / 3, 1 / 4]),
    ],
)
def test_random2d_weights_are_divided_by_the_layers_drawn(weighting, weights):
    chosen = plan.Random2d(
        [16, 8], [1, 2], layers_per_step=-1, dims_per_step=-1, layer_weighting=weighting, first_layer=0,
        last_layer_weight=3.0, prior_layers_weight=0.5, **MODEL,
    )(0)  # fmt: skip
    expected = [(layer, dim, weight * 0.5 / 4 * by_dim) for layer, weight in enumerate(weights)
                for dim, by_dim in ((8, 2), (16, 1))]  # fmt: skip
    expected += [(4, 8, 6.0), (4, 16, 3.0)]
    assert [tuple(item.sub) for item in chosen] == [row[:2] for row in expected]
    assert [item.weight for item in chosen] == pytest.approx([row[2] for row in expected], rel=1e-12)


def test_random2d_counts_the_weighting_from_its_first_layer():
    chooser = plan.Random2d(
        [16], layers_per_step=-1, layer_weighting="linear", first_layer=2, num_layers=5, width=16
    )
    assert [item.sub.layer for item in chooser(0)] == [2, 3, 4, 5]
    assert [item.weight for item in chooser(0)] == pytest.approx([1 / 3, 1 / 6, 1 / 9, 1.0])


def test_espresso_weighs_layers_by_the_logarithm_of_their_depth():
    chosen = plan.Espresso(4, **MODEL)(0)
    weights = [1 / 3, 1 / 3 / (1 + math.log(2)), 1 / 3 / (1 + math.log(3)), 1.0, 1.0]
    assert [tuple(item.sub) for item in chosen] == [(1, 4), (2, 4), (3, 4), (4, 4), (4, 16)]
    assert [item.weight for item in chosen] == pytest.approx(weights, rel=1e-12)


def test_espresso_of_the_authors_code_starts_at_the_embeddings_with_the_same_weights():
    paper, code = (plan.Espresso(4, layer_offset=offset, **MODEL)(0) for offset in (1, 0))
    assert [item.weight for item in code] == [item.weight for item in paper]
    assert [item.sub.layer for item in code] == [0, 1, 2, 4, 4]


def test_two_dmse_trains_a_layer_and_the_last_at_a_dim_and_in_full():
    drawn = Counter()
    for step in range(600):
        chosen = plan.TwoDMSE([4, 8], "v0.3.10", **MODEL)(step)
        layer, dim = chosen[0].sub
        assert [tuple(item.sub) for item in chosen] == [(layer, dim), (layer, 16), (4, dim), (4, 16)]
        assert [item.weight for item in chosen] == [1 / layer, 1 / layer, 1, 1]
        drawn[layer, dim] += 1
    assert len(drawn) == 6
    assert min(drawn.values()) > 60
    assert all(item.weight == 1 for item in plan.TwoDMSE([4, 8], "v0.3.5", **MODEL)(0))


def test_two_dmse_doubles_dims_from_8_to_below_the_width():
    assert {sub.dim for sub in plan.TwoDMSE(num_layers=2, width=768).sub_models} == {
        8, 16, 32, 64, 128, 256, 512, 768,
    }  # fmt: skip


def test_random2d_of_one_layer_trains_that_layer():
    assert plan.Random2d([8], num_layers=1, width=8)(0) == (Weighted(SubModel(1, 8), 1.0),)


def test_draws_differ_between_seeds_and_steps():
    def drawn(seed):
        return [plan.Random2d([2, 4, 8, 16], seed=seed, **MODEL)(step) for step in range(50)]

    assert drawn(0) != drawn(1)
    assert drawn(0)[1:] != drawn(1)[:-1]
    assert len(set(drawn(0))) > 20


def draws():
    return [draw(range(100), 3, generator_at(7, step)) for step in range(5)]


def test_draws_are_the_same_in_another_process(processes):
    assert processes.result(Path(__file__), "draws") == draws()


LAYERS, DIMS = r"must name whole layers in 1\.\.4, got", r"must name whole dims in 1\.\.16, got"


@pytest.mark.parametrize(
    ("chooser", "settings", "message"),
    [
        (plan.Full, {"num_layers": 0}, r"num_layers must be at least 1, got 0"),
        (plan.Full, {"width": 0}, r"width must be at least 1, got 0"),
        (plan.Dims, {"dims": [4, 32]}, rf"dims {DIMS} 32 .*num_layers=4, width=16"),
        (plan.Dims, {"dims": [0]}, rf"dims {DIMS} 0"),
        (plan.Dims, {"dims": [4.0]}, rf"dims {DIMS} 4\.0"),
        (plan.Dims, {"dims": [4, 4]}, r"dims must be distinct, got 4 twice: remove one"),
        (plan.Dims, {"dims": []}, r"dims is empty: name at least one, or leave dims out"),
        (plan.Dims, {"dims": [4, 16], "weights": [1]}, r"weights must have one .* the 2 dims, got 1"),
        (plan.Dims, {"dims": [4, 16], "weights": [1, -1]}, r"weights must be a finite number .*, got -1"),
        (plan.Dims, {"dims": [4, 16], "weights": [0, 0]}, r"weights are all 0, nothing would train"),
        (plan.FixedPairs, {"pairs": [[5, 4], [4, 16]]}, rf"pairs {LAYERS} 5"),
        (plan.FixedPairs, {"pairs": [[0, 4], [4, 16]]}, rf"pairs {LAYERS} 0"),
        (plan.FixedPairs, {"pairs": [[4, 17]]}, rf"pairs {DIMS} 17"),
        (plan.FixedPairs, {"pairs": [[1, 4, 2]]}, r"pairs must be \[layer, dim\] each, got \[1, 4, 2\]"),
        (plan.FixedPairs, {"pairs": ["48"]}, r"pairs must be \[layer, dim\] each, got '48'"),
        (plan.FixedPairs, {"pairs": [[1, 4], [3, 16]]}, r"add \[4, 16\] \(the last is \[3, 16\]\)"),
        (plan.FixedPairs, {"pairs": [[4, 16], [4, 16]]}, r"pairs must be distinct, got L4_D16 twice"),
        (plan.Grid, {"layers": [1, 2]}, r"layers must contain the last, got \[1, 2\]: add 4"),
        (plan.Grid, {"layers": [1, 5]}, rf"layers {LAYERS} 5"),
        (plan.Grid, {"layers": [4, 4]}, r"layers must be distinct, got 4 twice"),
        (plan.Grid, {"dims": [4, 8]}, r"dims must contain the full width, got \[4, 8\]: add 16"),
        (plan.Grid, {"dims": [4, 16], "per_step": 8}, r"per_step must be in 1\.\.7, got 8"),
        (plan.Grid, {"layers": [4], "dims": [16], "per_step": 1}, r"per_step must be left out, got 1"),
        (plan.Grid, {"layer_weights": [1]}, r"layer_weights must have one .* the 4 layers, got 1"),
        (plan.Espresso, {"compress_dim": 16}, r"compress_dim must be below the width 16, got 16"),
        (plan.Espresso, {"compress_dim": 17}, rf"compress_dim {DIMS} 17"),
        (plan.Espresso, {"compress_dim": 4, "layer_offset": 2}, r"layer_offset must be 0 .* 1 .*, got 2"),
        (plan.TwoDMSE, {"dims": [4, 16]}, r"dims must be below the width 16"),
        (plan.TwoDMSE, {"dims": [4], "version": "v1"}, r"version must be one of .*'v0.3.10'\], got 'v1'"),
        (plan.Random2d, {"layers_per_step": 0}, r"layers_per_step must be -1 \(all\) or at least 1, got 0"),
        (plan.Random2d, {"dims_per_step": 1.5}, r"dims_per_step must be -1 \(all\) or at least 1, got 1\.5"),
        (plan.Random2d, {"first_layer": 5}, r"first_layer must name whole layers in 0\.\.4, got 5"),
        (plan.Random2d, {"first_layer": 4}, r"below the last layer, got 4: choose 0\.\.3"),
        (plan.Random2d, {"layer_weighting": "cubic"}, r"layer_weighting must be one of .*'linear'"),
        (plan.Random2d, {"last_layer_weight": -1}, r"last_layer_weight must be a finite number"),
        (plan.Random2d, {"prior_layers_weight": float("nan")}, r"prior_layers_weight must be a finite"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named_with_the_cure(chooser, settings, message):
    with pytest.raises(InputError, match=message):
        chooser(**{**MODEL, **settings})
