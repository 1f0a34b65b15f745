"""What other programs and versions ask of the config.json of a saved backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedtrain.model.folder.contract import Contract

MATRYOSHKA = ("is_matryoshka", "matryoshka_dimensions")
# transformers 4 has no rope_parameters, and would take a default in silence: kind of layer -> its key there.
OLDER = {
    "modernbert": {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"},
    "gemma3_text": {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"},
}


def write_config(file: Path, contract: Contract) -> None:
    """Name the trained widths, which vLLM asks for before it truncates, and add what transformers 4 reads."""
    config = json.loads(file.read_text("utf-8"))
    dims = sorted({sub.dim for sub in contract.trained if sub.layer == contract.num_layers})
    own: dict[str, Any] = {"is_matryoshka": True, "matryoshka_dimensions": dims} if dims else {}
    others = {key: value for key, value in config.items() if key not in MATRYOSHKA}
    written = others | own | _older_rope(config)
    if written != config:
        write_json(file, written)


def write_json(file: Path, content: object) -> None:
    """A file that other libraries read, in a folder that is there or not."""
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8", errors="backslashreplace")


def _older_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary positions in the keys of transformers 4; none where 5 has none."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping):
        return {}
    if "rope_type" in rope or "rope_theta" in rope:
        rope = {"full_attention": rope}
    keys = OLDER.get(str(config.get("model_type")), {"full_attention": "rope_theta"})
    found = {
        key: rope[kind]["rope_theta"] for kind, key in keys.items() if "rope_theta" in rope.get(kind, ())
    }
    scaling = {key: value for key, value in rope.get("full_attention", {}).items() if key != "rope_theta"}
    if scaling.get("rope_type", "default") != "default":
        found["rope_scaling"] = scaling
    return found
