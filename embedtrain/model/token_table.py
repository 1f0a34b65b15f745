"""Rows of the token table looked up once for several forwards, so that their gradient is made once.

The backward of every lookup fills a gradient of the whole table, 47 MB for BERT's 30,522 x 384, however few
tokens there were. A batch runs in several micro-batches, which share one lookup here; what each fills is then
as large as the distinct tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedtrain.model.backbone.own_code import is_own


@contextmanager
def looked_up(model: PreTrainedModel, ids: Tensor) -> Iterator[None]:
    """While open, the token table gives the rows of `ids`, and of 0, from one lookup that autograd sees once.

    Nothing changes where it would not pay: on a device, where numbering the tokens waits for it; without
    gradient; for a table that is frozen, or of a class that lay in a folder. `Encoder` leaves out
    ranks that share the table.

    Args:
        model: it may have several modules over one table (T5).
        ids: all that will be asked for, of any shape.
    """
    on_cpu = torch.is_grad_enabled() and ids.device.type == "cpu"
    table = model.get_input_embeddings() if on_cpu and not is_own(model) else None
    weight = getattr(table, "weight", None)
    if table is None or not isinstance(weight, Tensor) or not weight.requires_grad:
        yield
        return
    used = torch.unique(torch.cat([ids.flatten(), ids.new_zeros(1)]))  # sorted
    rows = table(used)  # (U, H)
    place = torch.full((int(used[-1]) + 1,), -1, dtype=torch.int64)
    place[used] = torch.arange(len(used))
    alike = [part for part in model.modules() if isinstance(part, nn.Embedding) and part.weight is weight]
    for part in alike:
        vars(part)["forward"] = lambda asked: F.embedding(place[asked], rows)
    try:
        yield
    finally:
        for part in alike:
            del vars(part)["forward"]
