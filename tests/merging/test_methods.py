"""Methods of merging by closed forms and properties, on tensors that one can see."""

import math

import pytest
import torch

from embedtrain.merging.averages import Average, Slerp, Weighted
from embedtrain.merging.probed import Cocktail, GreedySoup, SelfPositioning
from embedtrain.merging.task_vectors import Dare, DareTies, TaskArithmetic, Ties
from embedtrain.merging.weights import Given, check_alike
from embedtrain.types import InputError


def drawn(seed, size=(7, 5)):
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(size, generator=generator),
        "b.bias": torch.randn(3, generator=generator) * 1e-3,
        "ids": torch.arange(4),
    }


class Bowl:
    """A probe whose loss is the squared distance from a place, the number of a batch being of no account."""

    def __init__(self, centre):
        self.centre = centre

    def batch_loss(self, weights, number):
        return sum((weights[key] - self.centre[key]).square().sum() for key in KEYS)

    def loss(self, weights):
        return float(self.batch_loss(weights, 0))


KEYS = ("a.weight", "b.bias")
BASE, ONE, TWO, THREE = drawn(0), drawn(1), drawn(2), drawn(3)
PROBE = Bowl({key: 0.7 * ONE[key] + 0.3 * TWO[key] for key in KEYS})


def given(*weights, **more):
    names = [f"run {number}" for number in range(len(weights))]
    return Given(names, weights, **{"base": BASE, "probe": PROBE} | more)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    assert all(found[key].dtype == expected[key].dtype for key in expected)


def assert_close(found, expected):
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], atol=1e-6, rtol=1e-6)


FIXED = {  # methods that leave a model as it is when it is merged with itself, by how often
    "average": (Average(), (2, 3, 7)),
    "weighted": (Weighted([0.1, 0.7]), (2,)),
    "slerp": (Slerp(0.3), (2,)),
    "task_arithmetic": (TaskArithmetic(1 / 3), (3,)),
    "ties": (Ties(density=1.0), (2, 3)),
    "greedy": (GreedySoup(), (2, 3)),
    "cocktail": (Cocktail(), (2, 3)),
    "self_positioning": (SelfPositioning(steps=0), (2, 3)),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_model_merged_with_itself_is_itself_bit_for_bit(name):
    method, counts = FIXED[name]
    for count in counts:
        assert_equal(method(given(*[ONE] * count)).weights, ONE)


def test_averages_are_hand_sums():
    assert_close(Average()(given(ONE, TWO)).weights, {key: (ONE[key] + TWO[key]) / 2 for key in KEYS})
    third = Weighted([1, 3])(given(ONE, TWO)).weights
    assert_close(third, {key: (ONE[key] + 3 * TWO[key]) / 4 for key in KEYS})
    assert torch.equal(third["ids"], ONE["ids"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sums_are_rounded_once(dtype):
    every = [{"a": torch.full((1,), value, dtype=dtype)} for value in (1.0, 2**-7, 2**-7)]
    assert float(Average()(given(*every)).weights["a"]) == pytest.approx((1 + 2**-6) / 3, rel=2**-8)


def test_slerp_ends_at_its_ends_and_keeps_the_length_of_equally_long_tensors():
    assert_equal(Slerp(0)(given(ONE, TWO)).weights, ONE)
    assert_close(Slerp(1)(given(ONE, TWO)).weights, {key: TWO[key] for key in KEYS})
    right, up = ({"a": torch.tensor(values)} for values in ([1.0, 0.0], [0.0, 1.0]))
    third = Slerp(1 / 3)(given(right, up)).weights["a"]
    torch.testing.assert_close(third, torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))
    with pytest.raises(InputError, match="slerp merges two runs, got 3"):
        Slerp()(given(ONE, TWO, THREE))


def test_slerp_of_opposite_or_empty_tensors_is_a_line():
    one, other = (
        {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2)},
        {"a": torch.tensor([-1.0, -2.0]), "b": torch.ones(2)},
    )
    assert_close(
        Slerp(0.25)(given(one, other)).weights, {"a": torch.tensor([0.5, 1.0]), "b": torch.full((2,), 0.25)}
    )


def test_task_arithmetic_adds_scaled_changes():
    found = TaskArithmetic(0.4)(given(ONE, TWO)).weights
    assert_close(found, {key: BASE[key] + 0.4 * (ONE[key] + TWO[key] - 2 * BASE[key]) for key in KEYS})
    assert_close(TaskArithmetic(0.5)(given(ONE, TWO)).weights, Average()(given(ONE, TWO)).weights)


def test_ties_trims_elects_and_merges_as_its_paper_says():
    """By hand, from algorithm 1: half of each change stays, over both tensors together."""
    base = {"a": torch.tensor([1.0, 1.0, 1.0]), "b": torch.tensor([0.0])}
    changes = [([4.0, -0.5, 2.0], [0.1]), ([-3.0, -0.2, 1.0], [0.3]), ([1.0, 5.0, 0.1], [-2.0])]
    runs = [
        {key: base[key] + torch.tensor(change) for key, change in zip("ab", both, strict=True)}
        for both in changes
    ]
    # stay: (4, 0, 2 | 0), (-3, 0, 1 | 0), (0, 5, 0 | -2); sums: 1, 5, 3 | -2; means of what agrees:
    expected = {"a": torch.tensor([4.0, 5.0, 1.5]), "b": torch.tensor([-2.0])}
    found = Ties(density=0.5, scale=2.0)(given(*runs, base=base)).weights
    assert_close(found, {key: base[key] + 2 * expected[key] for key in base})
    none = Ties(density=0.0)(given(*runs, base=base)).weights
    assert_equal(none, base)


@pytest.mark.parametrize("kind", [Dare, DareTies])
def test_dare_is_seeded_and_keeps_the_expectation(kind):
    ones = {key: BASE[key] + 1 if key != "ids" else BASE[key] for key in BASE}
    wide = drawn(0, (200, 300))
    moved = {key: wide[key] + 1 if key != "ids" else wide[key] for key in wide}
    method = kind(drop=0.75, scale=1.0)
    found = method(given(moved, base=wide)).weights["a.weight"] - wide["a.weight"]
    rounded = found.round(decimals=3).unique()
    assert rounded.tolist() == [0.0, 4.0], "a number is left out, or divided by what stays"
    assert float(found.mean()) == pytest.approx(1, abs=5 * 4 * math.sqrt(0.25 * 0.75 / 60_000))
    again = method(given(moved, base=wide)).weights["a.weight"] - wide["a.weight"]
    other = method(given(moved, base=wide, seed=1)).weights["a.weight"] - wide["a.weight"]
    assert torch.equal(found, again)
    assert not torch.equal(found, other)
    assert_close(kind(drop=0.0, scale=1.0)(given(ones)).weights, {key: ones[key] for key in KEYS})


def test_two_runs_leave_out_other_numbers():
    wide = drawn(0, (40, 50))
    moved = {key: wide[key] + 1 if key != "ids" else wide[key] for key in wide}
    found = Dare(drop=0.5, scale=1.0)(given(moved, moved, base=wide)).weights["a.weight"] - wide["a.weight"]
    assert found.round(decimals=3).unique().tolist() == [0.0, 2.0, 4.0]


def test_the_soup_is_never_worse_than_its_best_ingredient():
    for seed in range(20):
        runs = [drawn(100 + 3 * seed + number) for number in range(3)]
        probe = Bowl(drawn(1000 + seed))
        soup = GreedySoup()(given(*runs, probe=probe))
        assert probe.loss(soup.weights) <= min(map(probe.loss, runs))
    near, far = ONE, {key: ONE[key] * 100 for key in ONE}
    assert_equal(GreedySoup()(given(far, near, probe=Bowl(ONE))).weights, near)
    assert_equal(
        GreedySoup()(given(ONE, TWO, probe=Bowl(Average()(given(ONE, TWO)).weights))).weights,
        Average()(given(ONE, TWO)).weights,
    )


def test_the_cocktail_is_weighted_by_softmax():
    class Told:
        def loss(self, weights):
            return {id(ONE): 1.0, id(TWO): 2.0}[id(weights)]

    found = Cocktail(temperature=0.5)(given(ONE, TWO, probe=Told())).weights
    share = math.exp(-2) / (math.exp(-2) + math.exp(-4))
    assert_close(found, {key: share * ONE[key] + (1 - share) * TWO[key] for key in KEYS})
    equal = Cocktail()(given(ONE, TWO, probe=Bowl({key: (ONE[key] + TWO[key]) / 2 for key in ONE})))
    assert_close(equal.weights, Average()(given(ONE, TWO)).weights)


def test_self_positioning_finds_the_place_in_the_plane():
    """The probe is least at a point of the plane that the middle is far from."""
    centre = {key: BASE[key] + 1.2 * (ONE[key] - BASE[key]) + 0.1 * (TWO[key] - BASE[key]) for key in KEYS}
    probe = Bowl(centre)
    start = probe.loss(SelfPositioning(steps=0)(given(ONE, TWO, probe=probe)).weights)
    fitted = SelfPositioning(steps=400, lr=1e-3)(given(ONE, TWO, probe=probe))
    assert probe.loss(fitted.weights) < 0.05 * start
    assert "t " in fitted.chosen[0]
    assert fitted.chosen[1].startswith("factors of the task vectors: ")


@pytest.mark.parametrize("lr", [1e-3, 10.0])
def test_self_positioning_never_ends_worse_than_it_begins(lr):
    for seed in range(5):
        runs, probe = [drawn(50 + 3 * seed + number) for number in range(3)], Bowl(drawn(seed))
        start = probe.loss(SelfPositioning(steps=0)(given(*runs[:2], probe=probe)).weights)
        end = probe.loss(SelfPositioning(steps=5, lr=lr)(given(*runs[:2], probe=probe)).weights)
        assert end <= start * (1 + 1e-6)


def test_self_positioning_begins_at_equal_parts_of_equal_lengths():
    away = [{"a": torch.eye(3)[number]} for number in range(3)]
    base, probe = {"a": torch.zeros(3)}, type("P", (), {"loss": lambda *_: 0.0})()
    found = SelfPositioning(steps=0)(Given(["x", "y", "z"], away, base, probe)).weights["a"]
    assert float(found.norm()) == pytest.approx(1)
    assert float(found[0]) == pytest.approx(float(found[1]))


ORDERLESS = {
    "average": Average(),
    "task_arithmetic": TaskArithmetic(),
    "ties": Ties(),
    "cocktail": Cocktail(),
    "greedy": GreedySoup(),
}


@pytest.mark.parametrize("name", ORDERLESS)
def test_the_order_of_runs_changes_nothing(name):
    one, other = (ORDERLESS[name](given(*runs)).weights for runs in ((ONE, TWO, THREE), (THREE, ONE, TWO)))
    assert_close(one, {key: other[key] for key in KEYS})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("b.bias"), "one has b.bias and other has not: they are models of different kinds"),
        (lambda w: w.update(more=torch.ones(1)), "other has more and one has not"),
        (lambda w: w.update({"b.bias": torch.ones(4)}), r"b.bias is \(3,\) in one and \(4,\) in other"),
        (lambda w: w["a.weight"].fill_(float("nan")), "other: a.weight has numbers that are not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, message):
    other = drawn(5)
    change(other)
    with pytest.raises(InputError, match=message):
        check_alike(["one", "other"], [ONE, other])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Weighted([]), "shares must be"),
        (lambda: Weighted([1, -1]), "shares must be"),
        (lambda: Weighted([0, 0]), "shares must be"),
        (lambda: Weighted([1])(given(ONE, TWO)), "shares has 1 numbers for 2 runs"),
        (lambda: Slerp(1.5), "t must be in 0..1"),
        (lambda: Ties(density=2), "density must be in 0..1"),
        (lambda: Ties(scale=0), "scale must be above 0"),
        (lambda: Dare(drop=1), "drop=1 leaves nothing"),
        (lambda: TaskArithmetic(-1), "scale must be above 0"),
        (lambda: Cocktail(0), "temperature must be above 0"),
        (lambda: SelfPositioning(steps=-1), "steps must be 0 or more"),
        (lambda: SelfPositioning(momentum=1), "momentum in 0..1"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
