"""embedtrain-export: a physically smaller sentence-transformers folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedtrain.cli.start import start

if TYPE_CHECKING:
    from pathlib import Path

    from embedtrain.model.encoder import Encoder
    from embedtrain.settings.commands import ExportSettings


def main() -> None:
    """Entry point of `embedtrain-export`."""
    start("export")


def run(settings: ExportSettings) -> None:
    """Load a model, cut it, write it."""
    from embedtrain.escaping import terminal
    from embedtrain.run.export import export

    out, cut, encoder = export(settings)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    print(terminal(f"{out}: {cut.layer} layers, {cut.dim} dims, {size:.1f} MiB"))
    print(terminal(f"use it: {_how_to_use(settings, encoder, out)}"))


def _how_to_use(settings: ExportSettings, encoder: Encoder, out: Path) -> str:
    """One line of Python."""
    from embedtrain.escaping import python_string

    if settings.onnx:
        return f"onnxruntime.InferenceSession({python_string(f'{out}/model.onnx')})   (see docs/models.md)"
    trust = ", trust_remote_code=True" if list(out.glob("embedtrain_*.py")) else ""
    call = "encode_query" if encoder.process.prompts else "encode"
    return f'SentenceTransformer({python_string(str(out))}{trust}).{call}(["a text"])'


if __name__ == "__main__":
    main()
