"""What is made on another thread while this one uses what was made before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(items: Sequence[Given], make: Callable[[Given], Made]) -> Iterator[Made]:
    """What `make` gives of each item, in order, one item ahead; its error comes where its result would.

    So texts are read by a tokenizer, which lets other threads run, while a device works on those before them.
    """
    if len(items) < 2:
        yield from map(make, items)
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        later = pool.submit(make, items[0])
        for item in items[1:]:
            now = later.result()
            later = pool.submit(make, item)
            yield now
        yield later.result()


def one_behind(parts: Iterator[Made]) -> Iterator[Made]:
    """The same, each when the next one is there: a device that makes them has been given work before it."""
    before: list[Made] = []
    for part in parts:
        yield from before
        before = [part]
    yield from before
