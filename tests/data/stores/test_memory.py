from embedtrain.data.read.sources import Example
from embedtrain.data.stores.memory import Capped, MemoryRows, some_rows

EXAMPLES = [Example(f"q{n}", (f"p{n}",), (), None, "task", f"file:{n}") for n in range(20)]


def test_rows_are_taken_by_number_in_any_order():
    store = MemoryRows(EXAMPLES, "task")
    assert (len(store), store.task) == (20, "task")
    assert store.take([3, 1, 3]) == [EXAMPLES[3], EXAMPLES[1], EXAMPLES[3]]


def test_a_cap_leaves_rows_that_the_seed_draws():
    store = MemoryRows(EXAMPLES, "task")
    capped = [Capped(store, 7, seed) for seed in (0, 0, 1)]
    one, again, other = (rows.take(range(len(rows))) for rows in capped)
    assert one == again != other
    assert len(set(one)) == 7
    assert one[3:5] == capped[0].take([3, 4])
    assert len(Capped(store, 99, 0)) == 20


def test_a_store_shows_some_of_its_rows():
    store = MemoryRows(EXAMPLES, "task")
    assert some_rows(store) == EXAMPLES
    assert set(some_rows(Capped(store, 7, 0))) == set(Capped(store, 7, 0).take(range(7)))
