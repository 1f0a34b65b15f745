"""The whole embedding model as one ONNX graph: backbone cut, pooling, truncation, unit length.

    model.onnx        input_ids, attention_mask (M, T) and, where prompts are not pooled, prompt_len (M,), all
                      int64, to sentence_embedding (M, dim); M and T are free, padding on either side
    model.onnx.data   its weights, where they are large
    embedtrain.json   what decides an embedding, `tokenizer.json` how to get the ids

The graph is compared with torch in onnxruntime before the folder appears.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.files.atomic import atomic_folder
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.contract import write_contract
from embedtrain.model.folder.describe import contract_of, shipped_tokenizer
from embedtrain.model.folder.export import check_sub_model
from embedtrain.model.pooling import Pooling, pool_mask
from embedtrain.types import InputError, Inputs, SubModel

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FILE = "model.onnx"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of a coordinate of a unit vector
INLINE = 2**27  # bytes of weights that stay inside model.onnx, whose own limit is 2 GiB
PROBE = ("a cat", "the quick brown fox jumps over the lazy dog and runs away", "Is it 42?")


class Graph(nn.Module):
    """One sub-model from token ids to vectors.

    Args:
        backbone: cut to the layers of the sub-model.
        pooling: cut likewise.
        dim: leading coordinates that are kept.
        normalize: whether vectors have length one.
        skips: whether the tokens of a prompt are left out of pooling.
    """

    def __init__(
        self, backbone: Backbone, pooling: Pooling, *, dim: int, normalize: bool, skips: bool
    ) -> None:
        super().__init__()
        self.backbone, self.pooling = backbone, pooling
        self.dim, self.normalize, self.skips = dim, normalize, skips

    def forward(self, input_ids: Tensor, attention_mask: Tensor, prompt_len: Tensor | None = None) -> Tensor:
        """(M, dim) float32 from ids and mask (M, T) and prompt lengths (M,), all int64."""
        mask = attention_mask > 0
        skipped = input_ids.new_zeros(input_ids.shape[0]) if prompt_len is None else prompt_len
        layer = self.backbone.num_layers
        layers = tuple(range(1, layer + 1)) if self.pooling.needs_all_layers else (layer,)
        states = self.backbone(Inputs(input_ids, mask, skipped), layers)
        pooled = self.pooling(states, pool_mask(mask, skipped) if self.skips else mask, layer)[:, : self.dim]
        return F.normalize(pooled, dim=-1) if self.normalize else pooled

    def inputs(self, tokens: Inputs) -> tuple[Tensor, ...]:
        """The arguments of `forward` for some texts."""
        given = (tokens.values, tokens.mask.to(torch.int64), tokens.prompt_len)
        return given if self.skips else given[:2]


def export_onnx(
    encoder: Encoder, folder: str | Path, sub: SubModel | None = None, *, overwrite: bool = False
) -> Path:
    """Write an encoder, or one sub-model of it, as an ONNX graph with tokenizer and contract.

    LoRA adapters are merged, weights are float32. The folder appears whole or not at all.

    Raises:
        InputError: for a sub-model out of range, a folder that exists (unless `overwrite`), or packages that
            are missing.
        RuntimeError: when onnxruntime computes something else than torch.
    """
    check_packages()
    folder = Path(folder).expanduser()
    chosen = check_sub_model(encoder, sub) if sub is not None else SubModel(encoder.num_layers, encoder.width)
    contract = contract_of(encoder, chosen, normalize=encoder.normalize or sub is not None)
    graph = Graph(
        Backbone(encoder.backbone.cut(chosen.layer)),
        encoder.pooling.cut(chosen.layer),
        dim=chosen.dim,
        normalize=contract.normalize,
        skips=not encoder.process.include_prompt,
    )
    graph = graph.float().cpu().eval()
    samples = _samples(encoder)
    with atomic_folder(folder, overwrite=overwrite) as beside:
        _write_graph(graph, graph.inputs(samples[0]), beside / FILE)
        _check(graph, samples, beside / FILE)
        tokenizer = shipped_tokenizer(encoder)
        tokenizer.model_input_names = ["input_ids", "attention_mask"]  # all that the graph takes of it
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # is saved where it is there
        tokenizer.save_pretrained(beside)
        write_contract(beside, contract._replace(dtype="float32"))
    return folder


def check_packages() -> None:
    """Raises InputError when a package that the export needs is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX export needs {', '.join(missing)}: pip install 'embedtrain[onnx]'")


def names_of(graph: Graph) -> tuple[str, ...]:
    """The graph's inputs, in order."""
    every = ("input_ids", "attention_mask", "prompt_len")
    return every if graph.skips else every[:2]


def _samples(encoder: Encoder) -> list[Inputs]:
    """A padded batch, the same padded on the other side, and one text alone."""
    read = encoder.process.read(PROBE, "query", ["a "] * len(PROBE))
    batch = encoder.process.pad(read)
    return [batch, _other_side(batch), encoder.process.pad(read[:1])]


def _other_side(tokens: Inputs) -> Inputs:
    order = torch.argsort(tokens.mask.to(torch.int8), dim=1, stable=True)  # padding first
    if not tokens.mask[:, 0].all():
        order = torch.argsort((~tokens.mask).to(torch.int8), dim=1, stable=True)
    return Inputs(tokens.values.gather(1, order), tokens.mask.gather(1, order), tokens.prompt_len)


def _write_graph(graph: Graph, inputs: tuple[Tensor, ...], path: Path) -> None:
    free: dict[int, Any] = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    shapes = ({**free}, {**free}, {0: torch.export.Dim.DYNAMIC})[: len(inputs)]
    with torch.no_grad(), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # of the exporter, about names of its own
        program = torch.onnx.export(
            graph,
            inputs,
            dynamo=True,
            verbose=False,
            input_names=list(names_of(graph)),
            output_names=["sentence_embedding"],
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
        inputs = graph.inputs(tokens)
        with torch.no_grad():
            expected = graph(*inputs)  # (M, dim)
        found = run(session, dict(zip(names_of(graph), inputs, strict=True)))
        largest = 1.0 if graph.normalize else float(expected.abs().max().clamp(min=1))
        off = float((found - expected).abs().max()) / largest
        if not off <= TOLERANCE:  # NaN too
            raise RuntimeError(
                f"the ONNX graph is off by {off:.1e} from torch for tokens {tuple(tokens.mask.shape)}, more "
                f"than {TOLERANCE:.0e}: nothing was written. Another version of onnxscript or "
                "onnxruntime may do better"
            )


def run(session: InferenceSession, inputs: dict[str, Tensor]) -> Tensor:
    """The vectors (M, dim) that onnxruntime computes for the inputs of a graph."""
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(cast(Any, found))


@contextmanager
def _quiet() -> Iterator[None]:
    """While open, the exporter's loggers say errors only."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
