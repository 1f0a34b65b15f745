"""An mteb task with some of its behaviour exchanged, all else kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


def derived(task: AbsTask, *mixins: type, **attributes: Any) -> AbsTask:  # noqa: ANN401 (class attributes)
    """The task as an object of a subclass of its class, `mixins` first.

    `attributes` are the class's, because mteb forgets metadata that stand on the object when it unloads data.
    """
    made = type(type(task).__name__, (*mixins, type(task)), dict(attributes))
    new: AbsTask = object.__new__(made)
    vars(new).update(vars(task))
    return new
