"""What a sweep will cost, before anything is encoded.

Letters: H hidden width, T tokens of a text.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from embedtrain.evaluation.catalogue.texts import shipped_texts, texts_of
from embedtrain.evaluation.vectors.storage import GIB, Keeping
from embedtrain.model.encoder import Encoder
from embedtrain.types import Cell, InputError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

LOG = logging.getLogger(__name__)
PROBE_SECONDS = 2.0
_WINDOW = 16_384  # texts tokenised at a time
_CHARACTERS_PER_TOKEN = 4.3  # English, in the word pieces of BERT
_SEARCHED = ("Retrieval", "InstructionRetrieval")  # tasks whose corpora can be searched as they pass


class Cost(NamedTuple):
    """What one task costs."""

    task: str
    texts: int  # distinct ones: a text in another role counts again
    tokens: int  # after the cut at the longest length
    exact: bool  # counted in the data, not estimated from mteb's statistics
    vector_bytes: int  # of all layers of all texts
    flops: float
    seconds: float  # of encoding, all ranks together
    route: str  # where the vectors will be


def costs(
    encoder: Encoder, tasks: Sequence[AbsTask], cells: Sequence[Cell], keeping: Keeping, ranks: int = 1
) -> list[Cost]:
    """What each task costs, in the order given; encodes a few texts for two seconds to know the speed.

    Raises:
        InputError: if neither a task's data nor statistics of it are there.
    """
    found = [_counted(encoder, task) for task in tasks]
    sample = next((item.sample for item in found if item.sample), _WORDS)
    speed = probe(encoder, sample, max(cell.layer for cell in cells))
    return [_cost(encoder, item, cells, keeping, speed, ranks) for item in found]


def probe(encoder: Encoder, texts: Sequence[str], layer: int, seconds: float = PROBE_SECONDS) -> float:
    """Tokens a second, measured on growing parts of some texts until the time is over."""
    encoder.encode(list(texts[:2]), [layer])  # what is only slow once
    begun, done, tokens, size, passed = time.perf_counter(), 0, 0, 8, 0.0
    while passed < seconds:
        part = [texts[number % len(texts)] for number in range(done, done + size)]
        encoder.encode(part, [layer])
        tokens += sum(lengths(encoder, part))
        done, passed = done + size, time.perf_counter() - begun
        size = min(4 * size, 4_096) if passed < seconds / 8 else size
    return tokens / passed


def lengths(encoder: Encoder, texts: Sequence[str]) -> list[int]:
    """Tokens of each text as a document, cut at the longest length."""
    found: list[int] = []
    for start in range(0, len(texts), _WINDOW):
        window = list(texts[start : start + _WINDOW])
        found += [len(item.ids) for item in encoder.process.read(window, "document", [None] * len(window))]
    return found


def flops_of(encoder: Encoder, layer: int, tokens: float, squares: float) -> float:
    """Floating-point operations of encoding up to a block.

    Two for every parameter of the blocks and token, and 4 H T^2 a text and block for the similarities of
    attention and the sums they weigh (Kaplan et al. 2020, arXiv 2001.08361, section 2.1, forward only).
    torch's FlopCounterMode counts no attention on a CPU: 8 % less for MiniLM and 202 tokens (torch 2.13).

    Args:
        encoder: whose blocks are counted; embedding tables are looked up and cost nothing.
        layer: the deepest block that is run.
        tokens: of all texts.
        squares: the sum of the squared lengths of the texts.
    """
    blocks = encoder.backbone.blocks[:layer]
    parameters = sum(item.numel() for block in blocks for item in block.parameters())
    parameters *= layer // len(blocks)  # a family runs its only block many times
    return 2.0 * parameters * tokens + 4.0 * encoder.backbone.hidden_size * squares * layer


_WORDS = ["what a text of some words may look like " * times for times in (1, 2, 4, 8)]


class _Counted(NamedTuple):
    """The texts of one task."""

    task: str
    kind: str
    texts: int
    tokens: int
    squares: float  # the sum of the squared lengths
    exact: bool
    sample: list[str]


def _counted(encoder: Encoder, task: AbsTask) -> _Counted:
    """By the data where they are, else by mteb's statistics."""
    name, kind = task.metadata.name, str(task.metadata.type)
    try:
        texts = texts_of(task)
    except InputError as error:
        return _estimated(encoder, task, error)
    counts = lengths(encoder, texts)
    squares = float(sum(count * count for count in counts))
    sample = texts[:: max(1, len(texts) // 512)]
    return _Counted(name, kind, len(texts), sum(counts), squares, True, sample)


def _estimated(encoder: Encoder, task: AbsTask, error: InputError) -> _Counted:
    shipped = task.metadata.descriptive_stats
    if not shipped:
        raise error
    parts = [shipped_texts(shipped.get(split, {})) for split in task.eval_splits]
    texts, characters = (sum(column) for column in zip(*parts, strict=True))
    tokens = min(int(characters / _CHARACTERS_PER_TOKEN), texts * encoder.max_length)
    LOG.info("%s: no data here, estimated from mteb's statistics (%s)", task.metadata.name, error)
    squares = tokens * tokens / max(1, texts)
    return _Counted(task.metadata.name, str(task.metadata.type), texts, tokens, squares, False, [])


def _cost(
    encoder: Encoder, item: _Counted, cells: Sequence[Cell], keeping: Keeping, speed: float, ranks: int
) -> Cost:
    layers = {cell.layer for cell in cells}
    size = item.texts * len(layers) * encoder.width * (2 if keeping.dtype == "float16" else 4)
    flops = flops_of(encoder, max(layers), item.tokens, item.squares)
    route = route_of(size, item.kind, keeping)
    again = 2 if "streamed" in route and any("int8" in cell.dtype for cell in cells) else 1
    seconds = again * item.tokens / speed / ranks
    return Cost(item.task, item.texts, item.tokens, item.exact, size, again * flops, seconds, route)


def route_of(size: int, kind: str, keeping: Keeping) -> str:
    """Where `size` bytes of vectors will be; what other tasks have put into the store is not known."""
    if keeping.memory_gb is None or size <= keeping.memory_gb * GIB:
        return "memory"
    if keeping.folder is not None and (keeping.store_gb is None or size <= keeping.store_gb * GIB):
        return "store"
    return "streamed" if kind in _SEARCHED else "memory, beyond memory_gb"
