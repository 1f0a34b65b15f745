"""What of the environment a setting may hold: where things lie, and nothing that may be a secret.

Settings are written into config.yaml, model cards and loggers, and a recipe may come from anybody.
"""

from __future__ import annotations

import re
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from embedtrain.types import InputError

# The last part of the keys that are paths.
PLACES = frozenset(
    "path source cache data_root output_root out output store model corpus cross_encoder train validation "
    "runs base probe check_with dir subdir folder searchpath".split()
)
REFUSED = "InputError raised while resolving interpolation: "  # how OmegaConf reports ours
SECRET = re.compile("TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH|COOKIE|PRIVATE|SESSION|DSN", re.IGNORECASE)


def guard_environment() -> None:
    """Let `${oc.env:NAME}` be read where a key is a path, and nowhere else."""
    OmegaConf.register_new_resolver("oc.env", _read, replace=True)


def _read(name: str, *default: Any, _node_: Any) -> str | None:  # noqa: ANN401 - as OmegaConf calls it
    key = str(_node_._get_full_key(None))
    last = re.sub(r"\[\d+\]", "", key).rpartition(".")[2]
    if last not in PLACES or SECRET.search(name):
        raise InputError(
            f"{key} may not hold ${{oc.env:{name}}}: settings are written into config.yaml and model cards, "
            "so only paths are read from the environment, and no variable that may hold a secret. Libraries "
            "read their tokens from the environment themselves; give any other value as it is"
        )
    try:
        value: str | None = oc.env(name, *default)
    except KeyError as error:
        raise InputError(
            f"{key}: the environment has no variable {name}; set it, or write ${{oc.env:{name},/path}}"
        ) from error
    return value
