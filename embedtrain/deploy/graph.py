"""An ONNX graph as a store takes it: one file with its weights, one output, a tokenizer that truncates."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from embedtrain.types import InputError

OUTPUT = "sentence_embedding"
LARGEST = 2**31 - 2**20  # bytes of an ONNX file


class Graph(NamedTuple):
    """A sub-model from token ids to `sentence_embedding` (texts, dims)."""

    model: bytes
    tokenizer: bytes  # tokenizer.json
    token_types: bool  # whether it also reads token_type_ids


def read_graph(file: Path, max_length: int) -> Graph:
    """What `write_graph` wrote: the file of the graph, and its tokenizer beside it.

    Raises:
        InputError: for a graph that is too large for one file.
    """
    import onnx
    from tokenizers import Tokenizer

    if sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*")) > LARGEST:
        raise InputError("an ONNX file holds at most 2 GiB: give vespa and opensearch fewer layers")
    model = onnx.load(str(file))
    inputs = [item.name for item in model.graph.input]
    for item in [item for item in model.graph.output if item.name != OUTPUT]:
        model.graph.output.remove(item)
    tokenizer = Tokenizer.from_file(str(file.with_name("tokenizer.json")))
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return Graph(model.SerializeToString(), tokenizer.to_str().encode(), "token_type_ids" in inputs)
