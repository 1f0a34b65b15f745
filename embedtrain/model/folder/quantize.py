"""An ONNX graph with weights in int8, and what that costs, measured on a few texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

# English of many kinds; the first is short and the second long, as a graph must take both.
PROBE = (
    "a cat",
    "the quick brown fox jumps over the lazy dog and runs away",
    "Is it 42?",
    "How do I reset the password of my account?",
    "The central bank raised interest rates by half a point on Thursday.",
    "A man plays the guitar in front of a small crowd.",
    "Proteins fold into shapes that decide what they do.",
    "def add(a, b): return a + b",
    "Returns are free within 30 days if the box has not been opened.",
    "the film was slow, and the ending made no sense",
    "Rain is expected along the coast until Friday morning.",
    "Who wrote the first novel that was printed in Spanish?",
    "Mix flour, water and salt, and let the dough rest for an hour.",
    "The defendant appealed, and the court sent the case back.",
    "Best running shoes for flat feet under 100 dollars",
    "We show that the bound holds for every convex function.",
)
SPLIT = 2**30  # bytes: above them the weights lie beside the graph, which may have 2 GiB


class Quantized(NamedTuple):
    """Cosines of the vectors in int8 to those in float32."""

    mean: float
    least: float
    texts: int

    def __str__(self) -> str:
        least = f"{self.least:.4f} at least, over {self.texts} texts"
        return f"cosine to float32 {self.mean:.4f} on average, {least}"


def quantize(source: Path, target: Path, feeds: Mapping[str, Tensor]) -> Quantized:
    """The loss over the texts in `feeds`; writes the graph `source` as `target` with int8 weights."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    size = sum(file.stat().st_size for file in source.parent.glob(f"{source.name}*"))
    graph = onnx.load(str(source))
    del graph.graph.value_info[:]  # the exporter's shapes of folded weights are those before the folding
    quantize_dynamic(
        graph,
        target,
        per_channel=True,
        reduce_range=True,  # older CPUs overflow with all 8 bits
        weight_type=QuantType.QInt8,
        use_external_data_format=size // 4 > SPLIT,
    )
    given = {name: value.numpy() for name, value in feeds.items()}
    before, after = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
            ["sentence_embedding"], given
        )[0]
        for path in (source, target)
    )  # (M, dim) each
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (before, after)]
    cosines = (unit[0] * unit[1]).sum(1)
    return Quantized(float(cosines.mean()), float(cosines.min()), len(cosines))
