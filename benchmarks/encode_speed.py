"""Texts a CPU second and milliseconds a query, beside `SentenceTransformer.encode`, whole and cut.

    python benchmarks/encode_speed.py [--texts 3000] [--threads 1] [--parts texts query]

Texts are definitions of the dictionary, the model is MiniLM. `texts`: both sides encode all of them in turns,
with float32 and with bfloat16 weights, at 6, 4 and 2 layers; theirs are exported cuts. `graphs`: our encode
in torch as `ours`, and as `peer` onnxruntime on our graph of each cut, in float32 and with int8 weights
(its dynamic quantisation). `query`: one query at every layer, medians. The largest difference of the
vectors stands beside each ratio. Nothing passes or fails.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands set it; before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from in_process import BACKBONE, read, write
from sentence_transformers import SentenceTransformer
from tables import show
from tokens import dictionary

import embedtrain
from embedtrain.api.objects import Model
from embedtrain.model.folder.export import load_encoder

LAYERS = (6, 4, 2)
PARTS = ("texts", "graphs", "query")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Encode = Callable[[], Any]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--texts", type=int, default=3_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--queries", type=int, default=60, help="how often one query is encoded")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", default=BACKBONE)
    parser.add_argument("--tiny", action="store_true", help="20 texts, once: does it run")
    parser.add_argument("--out", type=Path, help="default: results/encode_speed.json; with --tiny none")
    given = parser.parse_args()
    if given.tiny:
        given.texts, given.repeats, given.queries = 20, 1, 2
    elif given.out is None:
        given.out = Path(__file__).parent / "results" / "encode_speed.json"
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        texts = [row["query"] for row in read(dictionary(Path(name), 3_000 if given.tiny else 20_000))]
        found = measured(given, texts[: given.texts], Path(name))
    show(found)
    write(given.out, given, found)


def measured(given: argparse.Namespace, texts: list[str], folder: Path) -> dict[str, Any]:
    """The tables of the parts asked for."""
    model = embedtrain.load(given.model)
    layers = [layer for layer in LAYERS if layer < model.num_layers]
    graphs = "graphs" in given.parts
    cuts = {
        layer: embedtrain.export(given.model, folder / f"cut_{layer}", layer=layer, onnx=graphs)
        for layer in (model.num_layers, *layers)
    }
    make = {"texts": of_texts, "graphs": of_graphs, "query": of_query}
    return {part: make[part](given, model, cuts, texts) for part in given.parts}


def of_texts(
    given: argparse.Namespace, model: Model, cuts: Mapping[int, Path], texts: list[str]
) -> list[dict[str, Any]]:
    """Both sides on all texts, by weights and layers."""
    rows = []
    for name, dtype in DTYPES.items():
        ours = Model(load_encoder(given.model, dtype=dtype), given.model)
        for layer, path in cuts.items():
            peer = SentenceTransformer(str(path), device="cpu", model_kwargs={"dtype": dtype})
            ways = {
                "ours": lambda layer=layer, ours=ours: ours.encode(texts, layer=layer),
                "peer": lambda peer=peer: peer.encode(
                    texts, show_progress_bar=False, normalize_embeddings=True
                ),
            }
            rows.append({"dtype": name, "layers": layer, **rates(ways, len(texts), given.repeats)})
    return rows


def of_graphs(
    given: argparse.Namespace, model: Model, cuts: Mapping[int, Path], texts: list[str]
) -> list[dict[str, Any]]:
    """Our ONNX graphs in sentence-transformers, beside ours in torch."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    rows = []
    for layer, path in cuts.items():
        graph = path / "model.onnx"
        quantize_dynamic(graph, path / "model_int8.onnx")
        for name in ("model.onnx", "model_int8.onnx"):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = given.threads
            session = onnxruntime.InferenceSession(path / name, options, providers=["CPUExecutionProvider"])
            ways = {
                "ours": lambda layer=layer: model.encode(texts, layer=layer),
                "peer": lambda session=session, model=model: _by_graph(session, model, texts),
            }
            found = rates(ways, len(texts), given.repeats)
            rows.append({"graph": name, "layers": layer, **found})
    return rows


def _by_graph(session: Any, model: Model, texts: list[str]) -> np.ndarray:  # noqa: ANN401
    """Unit vectors of a graph, sorted by length in batches of 32, as sentence-transformers has them."""
    process = model.encoder.process
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    result = np.empty((len(texts), model.width), np.float32)
    for begin in range(0, len(texts), 32):
        some = order[begin : begin + 32]
        inputs = process([texts[row] for row in some], "document")
        given = {"input_ids": inputs.values.numpy(), "attention_mask": inputs.mask.long().numpy()}
        result[some] = session.run(["sentence_embedding"], given)[0]
    return result


def of_query(
    given: argparse.Namespace, model: Model, cuts: Mapping[int, Path], texts: list[str]
) -> list[dict[str, Any]]:
    """One query: milliseconds of CPU time at every layer, and theirs at full depth, in turns."""
    query = "what similarity laws must be obeyed when constructing aeroelastic models"
    peer = SentenceTransformer(str(cuts[model.num_layers]), device="cpu")
    ways: dict[str, Encode] = {"SentenceTransformer.encode": lambda: peer.encode(query)}
    for layer in range(model.num_layers, 0, -1):
        ways[f"layer {layer}"] = lambda layer=layer: model.encode(query, layer=layer)
    spent = in_turns(ways, given.queries)
    theirs = median(spent["SentenceTransformer.encode"])
    whole = median(spent[f"layer {model.num_layers}"])
    return [
        {
            "way": name,
            "ms": 1000 * median(times),
            "theirs_over_it": theirs / median(times),
            "whole_over_it": whole / median(times),
        }
        for name, times in spent.items()
    ]


def rates(ways: Mapping[str, Encode], count: int, repeats: int) -> dict[str, float]:
    """Texts a CPU second of both ways, their ratio, and how far their vectors differ."""
    vectors = {name: np.asarray(way(), np.float32) for name, way in ways.items()}
    spent = in_turns(ways, repeats)
    ratio = median(b / a for a, b in zip(spent["ours"], spent["peer"], strict=True))
    each = {f"{name}_per_second": count / median(times) for name, times in spent.items()}
    return {**each, "ratio": ratio, "difference": float(abs(vectors["ours"] - vectors["peer"]).max())}


def in_turns(ways: Mapping[str, Encode], repeats: int) -> dict[str, list[float]]:
    """CPU-seconds of each way, so often, after one call that does not count."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, repeats):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            if turn >= 0:
                spent[name].append(time.process_time() - begun)
    return spent


if __name__ == "__main__":
    main()
