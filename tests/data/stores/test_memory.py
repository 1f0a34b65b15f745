import numpy as np

from embedtrain.data.read.sources import Example
from embedtrain.data.stores.memory import MemoryRows

EXAMPLES = [Example(f"q{n}", (f"p{n}",), (), None, "task", f"file:{n}") for n in range(20)]


def test_rows_in_memory_are_permuted_whole_and_taken_by_number():
    store = MemoryRows(EXAMPLES, "task")
    assert (len(store), store.task) == (20, "task")
    orders = [store.order(0, epoch)(np.arange(20)) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(20))
    assert orders[0].tolist() != orders[1].tolist()
    np.testing.assert_array_equal(store.order(0, 1)(np.array([7])), orders[1][[7]])
    assert store.order(1, 0)(np.arange(20)).tolist() != orders[0].tolist()
    assert store.take([3, 1, 3]) == {3: EXAMPLES[3], 1: EXAMPLES[1]}
