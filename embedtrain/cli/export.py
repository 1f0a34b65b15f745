"""embedtrain-export: a physically smaller sentence-transformers folder."""

from __future__ import annotations

from typing import Any

from embedtrain.cli.launch import launch


def main() -> None:
    """Entry point of `embedtrain-export`."""
    launch("export", run)


def run(config: dict[str, Any]) -> None:
    """Load a model, cut it, write it."""
    from pathlib import Path

    from embedtrain.cli.models import model_folder
    from embedtrain.model.export import load_encoder, save_encoder
    from embedtrain.types import SubModel

    encoder = load_encoder(model_folder(config["model"]))
    layer = encoder.num_layers if config["layer"] is None else config["layer"]
    dim = encoder.width if config["dim"] is None else config["dim"]
    out = Path(config["out"])
    save_encoder(encoder, out, SubModel(layer, dim), overwrite=config["overwrite"])
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    print(f"{out}: {layer} layers, {dim} dims, {size:.1f} MiB")
    print(f'use it: SentenceTransformer("{out}").encode(["a text"])')


if __name__ == "__main__":
    main()
