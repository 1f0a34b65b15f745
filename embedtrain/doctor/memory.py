"""What a training step keeps in memory on each rank, estimated before it runs out.

Activations are measured on two numbers of texts, by what autograd keeps for backward: so much a token,
and so much a micro-batch (under autocast each keeps its own casts of the weights). Attention that keeps T x T
tables grows faster with the length, so those texts are taken from the real batch, the longest among them.

Letters: B queries, C documents, M texts of a rank, L layers, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from embedtrain.doctor.built_run import BuiltRun, FirstBatch
from embedtrain.doctor.findings import Finding, finding
from embedtrain.doctor.similarity_memory import chunk_of, similarity_memory
from embedtrain.model.inputs.micro_batches import micro_batches
from embedtrain.training.steps.contrastive.queue import ROOM
from embedtrain.types import Inputs, distinct_layers

CHECK = "memory"
GIB = 2**30
MEASURED = 32  # texts
TIGHT = 0.8  # share of the machine's memory
HELD = ROOM + 1  # times a queue: where it lies, and beside the documents of the batch


class Memory(NamedTuple):
    """Bytes of one rank."""

    process: float  # interpreter, libraries, data that were read; weights not
    weights: float
    gradients: float
    optimiser: float
    update: float  # what AdamW makes for its largest parameter on the way
    activations: float
    embeddings: float  # of all ranks, with their gradient
    similarities: float
    queue: float
    guide: float

    @property
    def total(self) -> float:
        """All together, as if all were there at once."""
        return sum(self)


def activation_bytes(run: nn.Module, tokens: Inputs, layers: Sequence[int]) -> int:
    """What autograd keeps of one forward pass, weights not counted, each storage once."""
    weights = {item.untyped_storage().data_ptr() for item in run.parameters()}
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with saved_tensors_hooks(pack, lambda value: value):
        result = run(tokens, layers)
    del result  # until here, so that no storage is freed and its address used again
    return sum(kept.values())


def padded(lengths: Sequence[int], budget: int) -> int:
    """Tokens of texts with the padding of their micro-batches."""
    groups = micro_batches(lengths, budget)
    return sum(len(group) * lengths[group[0]] for group in groups)


def estimated(run: BuiltRun, every: Sequence[FirstBatch], resident: float = 0.0) -> Memory:
    """The memory of the largest first batch; a built run holds `resident` bytes, its weights included."""
    trained = [item for item in _parameters(run) if item.requires_grad]
    first = max(every, key=lambda item: int(item.whole.inputs.mask.sum()))
    lengths = first.whole.inputs.mask.sum(1).tolist()  # of all ranks
    at_once = [sorted(lengths)[:: run.ranks]]
    if run.gradcache is not None:
        chunks = run.gradcache.chunks(first.whole.inputs)
        at_once += [first.whole.inputs.mask[rows].sum(1).tolist() for rows in chunks]
    measured = _measured(run, first)
    sizes = [measured.of(part, run.micro_batch_tokens) for part in at_once]  # of all texts, of each chunk
    layers = distinct_layers(first.chosen)
    vectors = 4 * len(layers) * run.encoder.width
    held = 3 if run.gradcache is None else 2  # of queries and documents, their gradient
    queue = 0 if run.loss.queue is None else run.loss.queue.size
    guide = run.loss.guide
    module = getattr(getattr(guide, "model", None), "module", None)
    guide_bytes = 0.0 if module is None else _bytes(module.parameters())
    columns = len(first.whole.links.docs) + queue
    of_loss = similarity_memory(run, first)
    texts = len(lengths) + len(first.whole.links.docs)
    return Memory(
        process=max(0.0, resident - _bytes(_parameters(run)) - guide_bytes),
        weights=_bytes(_parameters(run)),
        gradients=_bytes(trained),
        optimiser=2 * _bytes(trained),
        update=2.0 * max((_bytes([item]) for item in trained), default=0.0),
        activations=sizes[0] if len(sizes) == 1 else min(sizes[0], max(sizes[1:])),
        embeddings=float(max(held * vectors * texts, vectors * texts + of_loss.per_text * len(lengths))),
        similarities=of_loss.of(chunk_of(run, first, columns), columns),
        queue=float(HELD * queue * (vectors + (0 if guide is None else 4 * guide.width))),
        guide=guide_bytes,
    )


def memory_finding(run: BuiltRun, need: Memory, available: int, sharing: int) -> Finding:
    """The estimate of one rank against the available bytes, which `sharing` ranks share."""
    parts = ", ".join(f"{name} {_shown(value)}" for name, value in need._asdict().items() if value)
    smaller = "a smaller data.batch_size or max_length, or gradcache=chunks, which keeps one chunk"
    if run.gradcache is not None:
        smaller = "smaller chunks (gradcache.max_tokens), backbone.gradient_checkpointing=true"
    several = f" on each of {sharing} ranks" if sharing > 1 else ""
    return finding(
        CHECK,
        "warning" if need.total * sharing / available > TIGHT else "ok",
        f"a step needs about {_shown(need.total)}{several} of {_shown(available)}: {parts}",
        f"It may run out: {smaller}.",
        **need._asdict(),
        total=need.total,
        available=available,
        sharing=sharing,
    )


class _Activations(NamedTuple):
    """Bytes that are kept for the backward pass."""

    per_token: float  # padding included
    per_micro_batch: float

    def of(self, lengths: Sequence[int], budget: int) -> float:
        """Those of some texts."""
        groups = micro_batches(lengths, budget)
        tokens = sum(len(group) * lengths[group[0]] for group in groups)
        return self.per_token * tokens + self.per_micro_batch * len(groups)


def _measured(run: BuiltRun, first: FirstBatch) -> _Activations:
    """Of texts of the batch spread over their lengths: as many as a micro-batch holds, and half of them."""
    lengths = first.batch.inputs.mask.sum(1)
    most = max(1, min(MEASURED, run.micro_batch_tokens // max(1, int(lengths.max()))))
    order = lengths.argsort(descending=True)[:: max(1, len(lengths) // most)][:most]
    half = order[::2] if len(order) > 1 else lengths.argsort()[len(lengths) // 2][None]
    (kept, tokens), (less, fewer) = (_kept(run, first, rows) for rows in (order, half))
    if tokens == fewer:
        return _Activations(kept / tokens, 0.0)
    slope = max((kept - less) / (tokens - fewer), 0.0)
    return _Activations(slope, max(kept - slope * tokens, 0.0))


def _kept(run: BuiltRun, first: FirstBatch, rows: Tensor) -> tuple[int, int]:
    """Bytes that autograd keeps of some texts of the batch, and their tokens with padding."""
    texts = first.batch.inputs.rows(rows)
    with torch.enable_grad(), run.autocast():
        kept = activation_bytes(run.encoder, texts.to_device(run.device), distinct_layers(first.chosen))
    return kept, padded(texts.mask.sum(1).tolist(), run.micro_batch_tokens)


def _parameters(run: BuiltRun) -> list[nn.Parameter]:
    return [*run.encoder.parameters(), *run.loss.objective.parameters()]


def _bytes(values: Iterable[Tensor]) -> float:
    return float(sum(item.numel() * item.element_size() for item in values))


def _shown(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
