"""Tables, pictures and the page of a run, from its files alone; called, the function of `embedtrain.api`.

A package and a function of one name: importing the package would hide the function, so the package can be
called as well.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Called(ModuleType):
    def __call__(self, *runs: Any, **settings: Any) -> Any:  # noqa: ANN401 - as `embedtrain.api.report` says
        return import_module("embedtrain.api").report(*runs, **settings)


sys.modules[__name__].__class__ = _Called
