"""A cut of a saved model, written as a folder, with ONNX graphs in it or without."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from embedtrain.files.atomic import check_free
from embedtrain.files.owned import recover
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.folder.quantize import Quantized
from embedtrain.run.artefacts import index_of
from embedtrain.run.models import model_folder, run_folder
from embedtrain.settings.commands import ExportSettings
from embedtrain.types import InputError, SubModel


class Exported(NamedTuple):
    """What was written."""

    folder: Path
    cut: SubModel
    encoder: Encoder  # the whole model
    int8: Quantized | None  # the loss of the graph in int8, where there are graphs


def export(settings: ExportSettings) -> Exported:
    """Load a model, cut it, write it.

    Raises:
        InputError: if there is no such model or cut, or `out` exists already.
    """
    source, out = model_folder(settings.model), Path(settings.out).expanduser()
    if Path(source).resolve().is_relative_to(out.resolve()):
        raise InputError(f"out={settings.out} holds the model that is exported: choose another folder")
    recover(out)
    check_free(out, overwrite=settings.overwrite)
    encoder = load_encoder(source)
    layer = encoder.num_layers if settings.layer is None else settings.layer
    dim = encoder.width if settings.dim is None else settings.dim
    cut = SubModel(layer, dim)
    index = index_of(run_folder(settings.model), out.name, cut)
    if settings.onnx:
        from embedtrain.model.folder.onnx import export_onnx

        loss = export_onnx(encoder, out, cut, overwrite=settings.overwrite, index=index)
        return Exported(out, cut, encoder, loss)
    save_encoder(encoder, out, cut, overwrite=settings.overwrite, index=index)
    return Exported(out, cut, encoder, None)
