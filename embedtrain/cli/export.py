"""embedtrain-export: a physically smaller sentence-transformers folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain.cli.start import start
from embedtrain.settings.commands import ExportSettings

if TYPE_CHECKING:
    from embedtrain.model.encoder import Encoder


def main() -> None:
    """Entry point of `embedtrain-export`."""
    start("export")


def run(settings: ExportSettings) -> None:
    """Load a model, cut it, write it."""
    from embedtrain.model.folder.export import load_encoder, save_encoder
    from embedtrain.run.artefacts import index_of
    from embedtrain.run.models import model_folder, run_folder
    from embedtrain.types import SubModel

    encoder = load_encoder(model_folder(settings.model))
    layer = encoder.num_layers if settings.layer is None else settings.layer
    dim = encoder.width if settings.dim is None else settings.dim
    out = Path(settings.out)
    if settings.onnx:
        from embedtrain.model.folder.onnx import export_onnx as write
    else:
        write = partial(
            save_encoder, index=index_of(run_folder(settings.model), out.name, SubModel(layer, dim))
        )
    write(encoder, out, SubModel(layer, dim), overwrite=settings.overwrite)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    print(f"{out}: {layer} layers, {dim} dims, {size:.1f} MiB")
    print(f"use it: {_how_to_use(settings, encoder, out)}")


def _how_to_use(settings: ExportSettings, encoder: Encoder, out: Path) -> str:
    """One line of Python."""
    if settings.onnx:
        return f'onnxruntime.InferenceSession("{out}/model.onnx")   (see docs/models.md)'
    trust = ", trust_remote_code=True" if list(out.glob("embedtrain_*.py")) else ""
    call = "encode_query" if encoder.process.prompts else "encode"
    return f'SentenceTransformer("{out}"{trust}).{call}(["a text"])'


if __name__ == "__main__":
    main()
