"""A part that a setting chooses: the class or function, and what it was given. `build` alone makes objects.

Keys are checked against the signature of the target. So a setting has one default, that of Python, and a
mistyped key is an error that names the nearest one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from embedtrain.settings.allowed import check_target, is_installed
from embedtrain.settings.names import OLD_NAMES, nearest
from embedtrain.settings.signatures import Signature, misfit, names_in_source, signature_of
from embedtrain.types import InputError

HOMES = ("embedtrain.", "pytorch_lightning.loggers.")  # where what the list names is defined
TARGET = "_target_"
# What a run gives to the parts that it builds, so nobody sets it.
GIVEN_BY_THE_RUN = frozenset(
    "folder save_dir num_layers hidden_size width guide_width seed pooling loss distill device".split()
)


@dataclass(frozen=True)
class Component:
    """What one group of a config chooses.

    Args:
        target: dotted name of a class on the list of the place (see `check_target`).
        settings: its keyword arguments; components among them, also in lists and mappings, are built first.
        where: the config key, for messages.
    """

    target: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    @classmethod
    def of(cls, node: Mapping[str, Any], where: str) -> Component:
        """The component that a `{_target_: dotted.name, setting: value}` node describes.

        Raises:
            InputError: if no `_target_` was chosen.
        """
        if TARGET not in node:
            raise InputError(f"{where} needs a `{TARGET}`; choose one by {where}=NAME from conf/{where}/")
        settings = {key: _read(value, f"{where}.{key}") for key, value in node.items() if key != TARGET}
        return cls(str(node[TARGET]), settings, where)

    def build(self, **extra: Any) -> Any:  # noqa: ANN401 - builds what the target is
        """The object; nested components are built first.

        Args:
            extra: values that the run knows and a config cannot (widths, a folder); each is passed, to the
                object and to those nested in it, if accepted.

        Raises:
            InputError: if the target is not allowed or unknown, a setting is unknown or missing, or the
                target refuses a value.
        """
        target = self.resolve()
        signature = signature_of(target)
        reserved = {key: value for key, value in extra.items() if key in signature.names}
        self._check(target.__name__, signature, reserved)
        self._check_kinds(target)
        for part in _parts(list(self.settings.values())):  # before any of them is built
            part.check()
        settings = {key: _built(value, extra) for key, value in self.settings.items()}
        try:
            return target(**settings, **reserved)
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from error
        except (TypeError, ValueError) as error:  # a text for a number, or a word a library does not know
            reason = f"{type(error).__name__}: {error}"
            raise InputError(
                f"{self.where}: {target.__name__} refuses its settings {settings} ({reason})"
            ) from error

    def changed(self, **settings: Any) -> Component:  # noqa: ANN401
        """The same with some settings in the place of its own."""
        return replace(self, settings={**self.settings, **settings})

    def mapped(self, **functions: Callable[[Any], Any]) -> Component:
        """The same with a function applied to some of the settings that it was given."""
        given = {
            key: function(self.settings[key]) for key, function in functions.items() if key in self.settings
        }
        return self.changed(**{key: functions[key](self.settings[key]) for key in given})

    def given(self) -> dict[str, Any]:
        """The node that describes it, as plain values."""
        return {TARGET: self.target} | {key: plain_value(value) for key, value in self.settings.items()}

    def effective(self) -> dict[str, Any]:
        """As `given`, with the default of every setting that was not; what the run gives is left out.

        Raises:
            InputError: if the target does not exist or is not allowed.
        """
        signature = signature_of(self.resolve())
        given = {key: _effective(value) for key, value in self.settings.items()}
        defaults = {
            key: plain_value(value)
            for key, value in signature.defaults.items()
            if key not in GIVEN_BY_THE_RUN
        }
        values = defaults | given
        names = [*signature.names, *values]  # in the order of the signature
        return {TARGET: self.target} | {key: values[key] for key in names if key in values}

    def resolve(self) -> Callable[..., Any]:
        """The class or function, allowed by its name and by the module that defines it.

        Raises:
            InputError: if it is not allowed or does not exist.
        """
        name, place = self.target, f"{self.where}.{TARGET}"
        module_name, _, attribute = name.rpartition(".")
        check_target(name, self.where)
        try:
            target = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise InputError(f"{place} '{name}' does not exist ({error})") from error
        home = str(getattr(target, "__module__", ""))
        if not callable(target) or not (f"{home}.".startswith(HOMES) or is_installed(home)):
            raise InputError(f"{place} '{name}' is defined in '{home}', which is not allowed")
        result: Callable[..., Any] = target
        return result

    def check(self) -> None:
        """Raise InputError for a class that is not allowed or a setting that it lacks; imports nothing."""
        check_target(self.target, self.where)
        names = names_in_source(self.target)
        if names is not None:
            self._check_names(self.target.rpartition(".")[2], names, GIVEN_BY_THE_RUN - self.settings.keys())
        for part in _parts(list(self.settings.values())):
            part.check()

    def _check(self, target: str, signature: Signature, reserved: Mapping[str, Any]) -> None:
        for key in self.settings:
            if key in reserved and f"{self.where}.{key}" not in OLD_NAMES:
                raise InputError(f"{self.where}.{key} is set by the run itself; remove it")
        if not signature.open_ended:
            self._check_names(target, signature.names, reserved.keys())
        for key in signature.names:
            if key not in signature.defaults and key not in reserved and key not in self.settings:
                raise InputError(f"{self.where}.{key} must be given: {target} needs it")

    def _check_kinds(self, target: Callable[..., Any]) -> None:
        for key, value in self.settings.items():
            if not isinstance(value, Component) and (kind := misfit(target, key, value)) is not None:
                raise InputError(f"{self.where}.{key} must be {kind}, got {value!r}")

    def _check_names(self, target: str, names: Sequence[str], reserved: Collection[str]) -> None:
        known = [name for name in names if name not in reserved]
        for key in self.settings:
            if key not in known:
                path = f"{self.where}.{key}"
                hint, listed = nearest(key, known, path), ", ".join(known) or "none"
                raise InputError(f"{path}: {target} has no setting '{key}'{hint} It has: {listed}")


def built(component: Component | None, **extra: Any) -> Any:  # noqa: ANN401
    """What a component describes, None where none was chosen."""
    return None if component is None else component.build(**extra)


def plain_value(value: Any) -> Any:  # noqa: ANN401
    """A value as YAML can hold it: components as their nodes, tuples as lists, anything else as its name."""
    return _walked(value, Component.given)


def _effective(value: Any) -> Any:  # noqa: ANN401
    return _walked(value, Component.effective)


def _walked(value: Any, shown: Callable[[Component], Any]) -> Any:  # noqa: ANN401
    if isinstance(value, Component):
        return shown(value)
    if isinstance(value, Mapping):
        return {key: _walked(item, shown) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_walked(item, shown) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value).removeprefix("torch.")


def _read(value: Any, where: str) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        if TARGET in value:
            return Component.of(value, where)
        return {key: _read(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_read(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def _parts(value: Any) -> Iterator[Component]:  # noqa: ANN401
    """The components in a value, at any depth of lists and mappings."""
    if isinstance(value, Component):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _parts(item)


def _built(value: Any, extra: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if isinstance(value, Component):
        return value.build(**extra)
    if isinstance(value, Mapping):
        return {key: _built(item, extra) for key, item in value.items()}
    if isinstance(value, list):
        return [_built(item, extra) for item in value]
    return value
