"""embedtrain-evaluate: mteb scores of a model at every (layer, dim) asked for."""

from __future__ import annotations

from typing import Any

from embedtrain.cli.launch import launch


def main() -> None:
    """Entry point of `embedtrain-evaluate`."""
    launch("evaluate", evaluate)


def evaluate(config: dict[str, Any]) -> None:
    """Evaluate one model, print the table, write scores.jsonl and the heat map."""
    from pathlib import Path

    from rich.console import Console

    from embedtrain.cli.measure import grid, measure
    from embedtrain.cli.models import model_folder, name_of
    from embedtrain.model.export import load_encoder
    from embedtrain.report.figures import save_heat_map
    from embedtrain.report.table import comparison
    from embedtrain.types import SubModel

    encoder = load_encoder(model_folder(config["model"]))
    trained = encoder.trained or (SubModel(encoder.num_layers, encoder.width),)
    folder = Path(config["output"] or Path(config["output_root"]) / f"evaluation-{name_of(config['model'])}")
    cells = grid(config["layers"], config["dims"], trained)
    run = name_of(config["model"])
    scores = measure(encoder, config["tasks"], config["data_root"], cells, run=run, step=0, folder=folder)
    Console().print(comparison([], scores, trained=trained))
    save_heat_map(folder / "heat_map.png", [], scores, trained=trained)
    print(f"scores: {folder / 'scores.jsonl'}   picture: {folder / 'heat_map.png'}")


if __name__ == "__main__":
    main()
