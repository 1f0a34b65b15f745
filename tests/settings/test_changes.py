"""A setting that is changed changes itself alone among the effective settings, or is refused."""

import pytest

from embedtrain.cli.commands import COMMANDS
from embedtrain.settings.compose import effective
from embedtrain.settings.options import settings_from
from embedtrain.types import InputError

NEEDED = {
    "train": {"name": "x", "data": {"train": "rows.jsonl"}},
    "doctor": {"name": "x", "data": {"train": "rows.jsonl"}},
    "evaluate": {"tasks": ["a"]},
    "compare": {"runs": ["a"]},
    "report": {"runs": ["a"]},
    "export": {"model": "m", "out": "o"},
    "merge": {"runs": ["a", "b"], "name": "x"},
    "pairs": {"source": "s", "out": "o.jsonl"},
    "rotate": {"model": "m", "source": "s", "out": "o"},
    "mine": {"source": "s", "out": "o.jsonl", "teacher": "minilm", "selection": "naive"},
}


def leaves(node, place=()):
    """(keys, value) of every setting."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*place, key))
        elif key != "_target_":
            yield (*place, key), value


def others(value):
    """Values that somebody could mean instead."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2 + 0.25, -3, 10**12, "seven", [value]]
    if isinstance(value, list):
        return [[*value, 7], [*value, "z"], [], "z"]
    return [3, 0.5, True, "z", "other/place", ["z"], [3], {"z": 1}]


def changed(keys, place, value):
    """The keys with another value at a place."""
    first, *rest = place
    inner = keys.get(first)
    if not rest:
        return {**keys, first: value}
    named = {"option": inner} if isinstance(inner, str) else dict(inner or {})
    return {**keys, first: changed(named, rest, value)}


def test_every_command_has_its_words_here():
    assert NEEDED.keys() == COMMANDS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_change_is_what_it_says_or_refused(name):
    kind, config = COMMANDS[name].settings, COMMANDS[name].config
    base = effective(settings_from(kind, config, NEEDED[name]))
    before = dict(leaves(base))
    counted = {"taken": 0, "refused": 0}
    for place, was in before.items():
        for value in others(was):
            try:
                made = settings_from(kind, config, changed(NEEDED[name], place, value))
            except InputError:
                counted["refused"] += 1
                continue
            after = dict(leaves(effective(made)))
            moved = {key for key in {*after, *before} if after.get(key, base) != before.get(key, base)}
            same = value == was and not isinstance(value, bool)
            inside = {key for key in moved if key[: len(place)] == place}
            assert moved == inside, (place, value, "changed too", moved - inside)
            assert moved or same, (place, value, "changed nothing")
            counted["taken"] += 1
    assert min(counted.values()) > 10, counted
