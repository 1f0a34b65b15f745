import threading

import pytest

from embedtrain.ahead import ahead, one_behind


def test_the_next_is_made_on_another_thread_while_one_is_used():
    begun = {number: threading.Event() for number in range(4)}
    threads, running = set(), threading.active_count()

    def make(number):
        begun[number].set()
        threads.add(threading.get_ident())
        return number * 10

    made = []
    for result in ahead(range(4), make):
        made.append(result)
        if len(made) < 4:
            assert begun[len(made)].wait(10), "the next was begun before anybody asked for it"
    assert made == [0, 10, 20, 30]
    assert threading.get_ident() not in threads
    assert threading.active_count() <= running


def test_one_thing_needs_no_thread():
    assert list(ahead([1], lambda _: threading.get_ident())) == [threading.get_ident()]
    assert list(ahead([], pytest.fail)) == []


def test_an_error_comes_where_the_result_would():
    results = ahead([1, 2, 0, 4], lambda number: 4 // number)
    assert [next(results), next(results)] == [4, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_one_behind_gives_each_when_the_next_is_there():
    made = []

    def parts():
        for number in range(3):
            made.append(number)
            yield number

    assert [(part, len(made)) for part in one_behind(parts())] == [(0, 2), (1, 3), (2, 3)]
