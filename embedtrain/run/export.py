"""A cut of a saved model, written as a folder, with ONNX graphs in it or without."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from embedtrain.deploy.beside import for_stores
from embedtrain.deploy.stores import check_stores
from embedtrain.devices import device_of
from embedtrain.evaluation.sweeping.funnel import Funnel, funnel_of
from embedtrain.files.atomic import check_free
from embedtrain.files.owned import recover
from embedtrain.files.scores import read_scores
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.export import load_encoder, save_encoder
from embedtrain.model.folder.quantize import Quantized
from embedtrain.run.models import model_folder, run_folder
from embedtrain.run.results.artefacts import index_of
from embedtrain.run.results.story import story_of
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
        InputError: if there is no such model, cut or store, or `out` exists already.
    """
    funnel = _funnel(settings)
    check_stores(settings.stores)
    device = device_of(settings.device)
    source, out = model_folder(settings.model), Path(settings.out).expanduser()
    if Path(source).resolve().is_relative_to(out.resolve()):
        raise InputError(f"out={settings.out} holds the model that is exported: choose another folder")
    recover(out)
    check_free(out, overwrite=settings.overwrite)
    encoder = load_encoder(source, trust_remote_code=settings.trust_remote_code).to(device)
    layer = encoder.num_layers if settings.layer is None else settings.layer
    dim = encoder.width if settings.dim is None else settings.dim
    run, more = run_folder(settings.model), None
    cut = SubModel(layer, dim) if funnel is None else funnel.last
    story = story_of(run, index_of(run, out.name, cut))
    if settings.stores:
        cells, keep = ((cut,), ()) if funnel is None else (funnel.cells, funnel.keep)
        dtype = "float32" if funnel is None else str(funnel)
        more = for_stores(encoder, cells, keep, settings.stores, out.name, _ndcg(run, cut, dtype))
    if settings.onnx:
        from embedtrain.model.folder.onnx import export_onnx

        loss = export_onnx(encoder, out, cut, overwrite=settings.overwrite, story=story, more=more)
        return Exported(out, cut, encoder, loss)
    save_encoder(encoder, out, cut, overwrite=settings.overwrite, story=story, more=more)
    return Exported(out, cut, encoder, None)


def _funnel(settings: ExportSettings) -> Funnel | None:
    """The funnel that stores are to run, None for a cut.

    Raises:
        InputError: for settings that exclude one another.
    """
    if settings.funnel is not None and not settings.stores:
        raise InputError("funnel says how stores search: name them, e.g. for=pgvector,qdrant")
    if settings.funnel is None:
        return None
    if settings.layer is not None or settings.dim is not None:
        raise InputError("the last cell of the funnel is the cut: leave out layer and dim")
    return funnel_of(settings.funnel, "funnel")


def _ndcg(run: Path, cut: SubModel, dtype: str) -> dict[str, float]:
    """nDCG@10 of the last weights that were measured, by task, of the split that a local task has."""
    scores = read_scores(run / "scores.jsonl")
    last = max((score.step for score in scores), default=0)
    wanted = (last, "ndcg_at_10", "test", cut.layer, cut.dim, dtype)
    return {
        score.task: score.value
        for score in scores
        if (score.step, score.metric, score.split, score.layer, score.dim, score.dtype) == wanted
    }
