"""embedtrain-export: a physically smaller sentence-transformers folder."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from pathlib import Path

    from embedtrain.model.encoder import Encoder
    from embedtrain.settings.commands import ExportSettings


def main() -> None:
    """Entry point of `embedtrain-export`."""
    sys.argv[1:] = [re.sub(r"^for=\[?([^\[\]]*)\]?$", r"stores=[\1]", word) for word in sys.argv[1:]]
    start("export")


def run(settings: ExportSettings) -> None:
    """Load a model, cut it, write it."""
    from embedtrain.escaping import terminal
    from embedtrain.run.export import export

    out, cut, encoder, int8 = export(settings)
    files = [path.stat() for path in out.rglob("*") if path.is_file()]
    size = sum({file.st_ino: file.st_size for file in files}.values()) / 2**20  # a file may have two names
    print(terminal(f"{out}: {cut.layer} layers, {cut.dim} dims, {size:.1f} MiB"))
    if int8 is not None:
        print(terminal(f"{out}/onnx/model_quantized.onnx has int8 weights: vectors have {int8}"))
    if settings.stores:
        print(terminal(f"{out / 'for'}: {', '.join(settings.stores)}   (see the README.md of each)"))
    print(terminal(f"use it: {_how_to_use(settings, encoder, out)}"))


def _how_to_use(settings: ExportSettings, encoder: Encoder, out: Path) -> str:
    """One line of Python."""
    from embedtrain.escaping import python_string

    if settings.onnx:
        return (
            f"onnxruntime.InferenceSession({python_string(f'{out}/onnx/model.onnx')})   (see docs/models.md)"
        )
    trust = ", trust_remote_code=True" if list(out.glob("*.py")) else ""
    call = "encode_query" if encoder.process.prompts else "encode"
    return f'SentenceTransformer({python_string(str(out))}{trust}).{call}(["a text"])'


if __name__ == "__main__":
    main()
