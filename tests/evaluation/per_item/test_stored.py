import numpy as np
import pytest

from embedtrain.evaluation.per_item.stored import (
    About,
    ItemValues,
    has_items,
    items_file,
    paired,
    read_items,
    write_items,
)
from embedtrain.types import InputError


def make(values, ids=None, metric="ndcg_at_10", statistic="mean", gold=None, **changes):
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    statistics = {metric: statistic} if n else {}
    about = About("mine", 3, "find", "test", 2, 8, "float32", "w", "d0", "2.26", ("default",), statistics)
    return ItemValues(
        about._replace(**changes),
        np.arange(n) if ids is None else np.asarray(ids),
        np.zeros(n, dtype=np.int64),
        np.zeros(n) if gold is None else np.asarray(gold, dtype=float),
        {metric: values[:, None]} if n else {},
    )


def test_items_come_back_as_they_were(tmp_path):
    items = make([0.1, 1 / 3, 0.25], ids=[2**62, 5, 7])
    path = items_file(tmp_path, "find", step=3, cell="L2_D8", split="test")
    write_items(path, items)
    back = read_items(path)
    assert back.about == items.about
    assert back.ids.tolist() == [2**62, 5, 7]
    assert np.array_equal(back.values["ndcg_at_10"], items.values["ndcg_at_10"])
    assert back.sample().score() == pytest.approx((0.1 + 1 / 3 + 0.25) / 3, abs=1e-15)
    assert list(path.parent.iterdir()) == [path]  # no draft is left


def test_a_name_that_no_file_system_likes_is_made_one_it_does(tmp_path):
    path = items_file(tmp_path, "find", step=0, cell="funnel(L2_D32>200>L6_D384)", split="test")
    assert path == tmp_path / "items/find/step0_funnel-L2_D32-200-L6_D384-_test.npz"


def test_items_of_other_weights_data_or_mteb_do_not_count(tmp_path):
    path = tmp_path / "a.npz"
    assert not has_items(path, ("w", "d0", "2.26"))
    write_items(path, make([0.5]))
    assert has_items(path, ("w", "d0", "2.26"))
    for other in ({"weights": "v"}, {"data": "d1"}, {"mteb": "2.27"}):
        assert not has_items(path, tuple(({"weights": "w", "data": "d0", "mteb": "2.26"} | other).values()))


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"gone.npz: no items are kept of this cell; evaluate it again"):
        read_items(tmp_path / "gone.npz")
    path = tmp_path / "bad.npz"
    write_items(path, make([0.5, 0.25]))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"bad\.npz cannot be read"):
        read_items(path)
    assert not has_items(path, ("w", "d0", "2.26"))


def test_items_are_paired_by_what_was_asked_not_by_place():
    first = make([0.1, 0.2, 0.3], ids=[30, 10, 20])
    second = make([0.5, 0.6, 0.7], ids=[10, 20, 30])
    one, other = paired(first, second)
    assert one.ids.tolist() == other.ids.tolist() == [30, 10, 20]
    assert other.values["ndcg_at_10"][:, 0].tolist() == [0.7, 0.5, 0.6]


def test_a_question_asked_twice_is_paired_in_the_order_of_the_data():
    first, second = make([0.1, 0.2, 0.3], ids=[7, 7, 5]), make([0.4, 0.5, 0.6], ids=[5, 7, 7])
    _, other = paired(first, second)
    assert other.values["ndcg_at_10"][:, 0].tolist() == [0.5, 0.6, 0.4]


def test_items_that_only_one_has_are_an_error():
    with pytest.raises(
        InputError, match=r"has 3 items and .* 2, 2 only in the first and 1 only in the second"
    ):
        paired(make([0.1] * 3, ids=[1, 2, 3]), make([0.1] * 2, ids=[1, 9]))


def test_other_data_are_an_error():
    with pytest.raises(InputError, match="find: mine step 3 was measured on data d0 and mine step 3 on d1"):
        paired(make([0.1]), make([0.1], data="d1"))


def test_what_keeps_no_items_says_so():
    with pytest.raises(InputError, match="tasks of this type keep no items"):
        make([]).sample()
    with pytest.raises(InputError, match="accuracy is not kept by item; there are ndcg_at_10"):
        make([0.1]).sample("accuracy")
