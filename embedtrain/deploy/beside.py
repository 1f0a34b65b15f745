"""What stores need beside an exported model: from an encoder and a cut or funnel to files under for/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from embedtrain.deploy.graph import Graph, read_graph
from embedtrain.deploy.search import Search
from embedtrain.deploy.stores import files_of, graphs_of, write_files
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.describe import contract_of
from embedtrain.model.folder.export import check_sub_model, save_encoder
from embedtrain.types import InputError, SubModel

FOLDER = "for"


def for_stores(
    encoder: Encoder,
    cells: Sequence[SubModel],
    keep: Sequence[int],
    stores: Sequence[str],
    name: str,
    scores: Mapping[str, float],
) -> Callable[[Path], None]:
    """What writes for/ into the folder of a model: a folder a store, and the models of earlier layers.

    Args:
        encoder: the whole model.
        cells: of a funnel, or the cut alone.
        keep: documents that each cell but the first looks at.
        stores: by name.
        name: of the exported folder.
        scores: nDCG@10 of this search by task, which the files repeat.

    Raises:
        InputError: for a sub-model out of range, or what a store cannot hold.
    """
    for cell in cells:
        check_sub_model(encoder, cell)
    contract = contract_of(encoder, cells[-1])
    search = Search(
        name=name,
        cells=tuple(cells),
        keep=tuple(keep),
        prompts=contract.prompts,
        default_prompt=contract.default_prompt is not None,
        max_length=contract.max_length,
        scores=scores,
    )

    search = search._replace(graphs=_graphs(encoder, graphs_of(search, stores), contract.max_length))

    def write(folder: Path) -> None:
        needs_code = any(folder.glob("*.py"))
        write_files(folder / FOLDER, files_of(search._replace(needs_code=needs_code), stores))
        for sub in search.whole[:-1]:
            save_encoder(encoder, folder / FOLDER / str(sub), sub)

    return write


def _graphs(encoder: Encoder, subs: Sequence[SubModel], max_length: int) -> dict[SubModel, Graph]:
    if not subs:
        return {}
    if not encoder.process.include_prompt:
        raise InputError(
            "vespa and opensearch pool the tokens of prompts, and this model leaves them out: choose "
            "pgvector, qdrant, elasticsearch, faiss or usearch, where sentence-transformers embeds"
        )
    from embedtrain.model.folder.onnx import write_graph

    graphs: dict[SubModel, Graph] = {}
    for sub in subs:
        with TemporaryDirectory() as place:
            graphs[sub] = read_graph(write_graph(encoder, Path(place), sub), max_length)
    return graphs
