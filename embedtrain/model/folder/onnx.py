"""The whole embedding model as ONNX graphs in its folder: backbone cut, pooling, truncation, unit length.

    onnx/model.onnx             input_ids, attention_mask (batch_size, sequence_length) and, where prompts are
                                not pooled, prompt_len (batch_size), all int64, padding on either side, to
                                token_embeddings (batch_size, sequence_length, dim): the last states, gated,
                                rotated and cut as vectors are, for clients that pool by themselves, and
                                sentence_embedding (batch_size, dim)
    model.onnx                  the same with last_hidden_state (batch_size, sequence_length, hidden_size) for
                                sentence-transformers and optimum, which pool and cut by the folder's modules.
                                Where prompts are not pooled, these states alone, without prompt_len
    onnx/model.onnx.data        its weights, where they are large
    onnx/model_quantized.onnx   the same with weights in int8, its loss measured
    embedtrain.json, ...        all that `save_encoder` writes

The graph is compared with torch in onnxruntime before the folder appears.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from embedtrain.files.atomic import atomic_folder
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.cards.card import GRAPHS, Story
from embedtrain.model.folder.describe import write_tokenizer
from embedtrain.model.folder.export import shipped_parts, write_model
from embedtrain.model.folder.graph import Graph
from embedtrain.model.folder.quantize import PROBE, Quantized, quantize
from embedtrain.model.folder.st_folder import Shipped
from embedtrain.types import InputError, Inputs, SubModel

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FOLDER, FILE, INT8 = GRAPHS, "model.onnx", "model_quantized.onnx"
TOKENS = ("input_ids", "attention_mask")  # of the inputs, those that a tokenizer gives
OUTPUTS = ("token_embeddings", "sentence_embedding")
STATES = "last_hidden_state"  # at full width; transformers.js would take them for the vectors of the tokens
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of a coordinate of a unit vector
INLINE = 2**30  # bytes of weights that stay inside model.onnx, whose own limit is 2 GiB


def export_onnx(
    encoder: Encoder,
    folder: str | Path,
    sub: SubModel | None = None,
    *,
    overwrite: bool = False,
    story: Story = Story(),  # noqa: B008 (a NamedTuple is constant)
    more: Callable[[Path], object] | None = None,
) -> Quantized:
    """The loss of the int8 graph; writes the folder of an encoder, or one sub-model of it, with graphs.

    LoRA adapters are merged, weights of the graph are float32. The folder appears whole or not at all.

    Raises:
        InputError: as `save_encoder`, or for packages that are missing.
        RuntimeError: when onnxruntime computes something else than torch.
    """
    check_packages()
    folder = Path(folder).expanduser()
    shipped = shipped_parts(encoder, sub)
    with atomic_folder(folder, overwrite=overwrite) as beside:
        (beside / FOLDER).mkdir()
        path = beside / FOLDER / FILE
        graph = _checked_graph(encoder, shipped, path)
        _split(graph, path, beside)
        with _quiet():
            plain = encoder.process.pad(encoder.process.read(PROBE, "query", [""] * len(PROBE)))
            loss = quantize(path, path.with_name(INT8), _feeds(graph, plain))
        write_model(encoder, shipped, beside, folder.name, story=story, notes=[_note(loss)])
        write_tokenizer(encoder, beside, TOKENS)
        if more is not None:
            more(beside)
    return loss


def write_graph(encoder: Encoder, folder: Path, sub: SubModel) -> Path:
    """The graph of a sub-model, model.onnx in a folder that is there, and beside it its tokenizer.

    Raises:
        InputError: for packages that are missing.
        RuntimeError: when onnxruntime computes something else than torch.
    """
    check_packages()
    path = folder / FILE
    _checked_graph(encoder, shipped_parts(encoder, sub), path)
    write_tokenizer(encoder, folder, TOKENS)
    return path


def _checked_graph(encoder: Encoder, shipped: Shipped, path: Path) -> Graph:
    contract = shipped.contract
    graph = Graph(
        Backbone(encoder.backbone.cut(contract.num_layers)),
        shipped.pooling,
        dim=contract.width,
        normalize=contract.normalize,
        skips=not encoder.process.include_prompt,
        rotation=shipped.rotation.get(contract.num_layers),
    )
    graph = graph.float().cpu().eval()
    samples = _samples(encoder)
    _write_graph(graph, graph.inputs(samples[0]), path)
    _check(graph, samples, path)
    return graph


def _split(graph: Graph, path: Path, folder: Path) -> None:
    """Write the graph with full states as model.onnx of a folder, and leave them out of the one at `path`.

    It is one file with two names where both are the same to every client.
    """
    import onnx

    for file in path.parent.glob(f"{FILE}?*"):  # weights that lie beside it
        _name_again(file, folder / file.name)
    if graph.gives_states and not graph.skips:
        _name_again(path, folder / FILE)
        return
    model = onnx.load(str(path), load_external_data=False)
    states = onnx.utils.Extractor(model).extract_model(list(TOKENS), [STATES]) if graph.skips else model
    onnx.save(states, str(folder / FILE))
    (output,) = [item for item in model.graph.output if item.name == STATES]
    model.graph.output.remove(output)
    onnx.save(model, str(path))


def _note(loss: Quantized) -> str:
    return (
        f"ONNX: `{FOLDER}/{FILE}` gives the same vectors as `{OUTPUTS[1]}`; `{FOLDER}/{INT8}`, with int8 "
        f"weights, {loss}."
    )


def _name_again(file: Path, link: Path) -> None:
    """Give a file a second name, without a second copy where the disk can."""
    try:
        os.link(file, link)
    except OSError:
        shutil.copyfile(file, link)


def check_packages() -> None:
    """Raises InputError when a package that the export needs is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX export needs {', '.join(missing)}: pip install 'embedtrain[onnx]'")


def names_of(graph: Graph) -> tuple[str, ...]:
    """The graph's inputs, in order."""
    return (*TOKENS, "prompt_len") if graph.skips else TOKENS


def _samples(encoder: Encoder) -> list[Inputs]:
    """A padded batch with prompts, the same padded on the other side, and one text alone."""
    read = encoder.process.read(PROBE[:3], "query", ["a "] * 3)
    batch = encoder.process.pad(read)
    return [batch, _other_side(batch), encoder.process.pad(read[:1])]


def _other_side(tokens: Inputs) -> Inputs:
    order = torch.argsort(tokens.mask.to(torch.int8), dim=1, stable=True)  # padding first
    if not tokens.mask[:, 0].all():
        order = torch.argsort((~tokens.mask).to(torch.int8), dim=1, stable=True)
    return Inputs(tokens.values.gather(1, order), tokens.mask.gather(1, order), tokens.prompt_len)


def _write_graph(graph: Graph, inputs: tuple[Tensor, ...], path: Path) -> None:
    free: dict[int, Any] = {0: "batch_size", 1: "sequence_length"}
    shapes = ({**free}, {**free}, {0: "batch_size"})[: len(inputs)]
    with torch.no_grad(), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # of the exporter, about names of its own
        program = torch.onnx.export(
            graph,
            inputs,
            dynamo=True,
            verbose=False,
            input_names=list(names_of(graph)),
            output_names=[*OUTPUTS, STATES],
            dynamic_shapes=shapes,
        )
    assert program is not None
    size = sum(value.numel() * value.element_size() for value in graph.state_dict().values())
    program.save(str(path), external_data=size > INLINE)


def _check(graph: Graph, samples: Sequence[Inputs], path: Path) -> None:
    """Raises RuntimeError when onnxruntime and torch differ on some sample."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for tokens in samples:
        with torch.no_grad():
            expected = graph(*graph.inputs(tokens))[:2]  # (M, T, dim), (M, dim)
        found = run(session, _feeds(graph, tokens))
        real = tokens.mask.unsqueeze(-1)  # what a state of padding is does not matter
        pairs = zip((found[0] * real, found[1]), (expected[0] * real, expected[1]), strict=True)
        off = max(float((one - two).abs().max() / two.abs().max().clamp(min=1)) for one, two in pairs)
        if not off <= TOLERANCE:  # NaN too
            raise RuntimeError(
                f"the ONNX graph is off by {off:.1e} from torch for tokens {tuple(tokens.mask.shape)}, more "
                f"than {TOLERANCE:.0e}: nothing was written. Another version of onnxscript or "
                "onnxruntime may do better"
            )


def _feeds(graph: Graph, tokens: Inputs) -> dict[str, Tensor]:
    return dict(zip(names_of(graph), graph.inputs(tokens), strict=True))


def run(session: InferenceSession, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What onnxruntime computes for the inputs of a graph: states (M, T, dim) and vectors (M, dim)."""
    tokens, vectors = session.run(OUTPUTS, {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(cast(Any, tokens)), torch.from_numpy(cast(Any, vectors))


@contextmanager
def _quiet() -> Iterator[None]:
    """While open, loggers of the exporter and of quantisation say errors only."""
    names = ("", "torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
