"""What an `Encoder` asks of a modality: a processor that reads contents, and a backbone that takes them in.

Letters: M contents, T tokens of the longest, F numbers of a token, H hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedtrain.model.inputs.packing import Packed
from embedtrain.types import Content, InputError, Inputs, Processor, Role


class Reader(Processor, Protocol):
    """A processor in two steps, so that contents are sorted by length between reading and padding.

    What `read` gives of a content has a `length`, its tokens.
    """

    @property
    def max_length(self) -> int:
        """Most tokens of a content."""
        ...

    @property
    def prompts(self) -> Mapping[str, str]:
        """The prompt before contents of a role; empty where a modality has none."""
        ...

    def read(
        self, contents: Sequence[Content], role: Role, prompts: Sequence[str | None] | None = None, /
    ) -> Sequence[Any]:
        """Each content as the model reads it, not padded; prompts as in `Processor`."""
        ...

    def pad(self, read: Sequence[Any], /) -> Inputs:
        """Some of what was read as one, on the CPU."""
        ...


class LayeredBackbone(Protocol):
    """An `nn.Module` that gives the states after any of its blocks."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks; FSDP spreads each over the ranks."""
        ...

    @property
    def num_layers(self) -> int:
        """How many blocks there are."""
        ...

    @property
    def hidden_size(self) -> int:
        """H."""
        ...

    @property
    def max_positions(self) -> int | None:
        """Longest content in tokens; None when there is no limit."""
        ...

    def __call__(self, inputs: Inputs | Packed, layers: Sequence[int], /) -> tuple[Tensor, ...]:
        """States after each of `layers`, (M, T, H); those of `Packed` rows, after `expect_packing` only."""
        ...

    def expect_packing(self) -> None:
        """Raises InputError when packed rows do not give the states that their contents have alone."""
        ...


def can_pack(backbone: LayeredBackbone, device: torch.device) -> bool:
    """Whether contents may share rows; one that has no `expect_packing` cannot."""
    if not hasattr(backbone, "expect_packing"):
        return False
    try:
        with torch.autocast(device.type, enabled=False):
            backbone.expect_packing()
    except InputError:
        return False
    return True


def padded(
    flat: NDArray[Any], lengths: Sequence[int], prompt_len: Sequence[int], fill: float = 0, left: bool = False
) -> Inputs:
    """Contents that lie end to end as `Inputs` of (M, T) or (M, T, F), padded on one side.

    Args:
        flat: (ΣT,) or (ΣT, F).
        lengths: M tokens of each content.
        prompt_len: M as in `Inputs`.
        fill: what padding is.
        left: whether it is on the left.
    """
    counts = np.array(lengths, np.int64)
    longest = int(counts.max()) if len(counts) else 0
    columns = np.arange(longest)
    mask = columns >= longest - counts[:, None] if left else columns < counts[:, None]  # (M, T)
    values = np.full((*mask.shape, *flat.shape[1:]), fill, flat.dtype)
    values[mask] = flat
    ends = np.full_like(counts, longest) if left else counts
    return Inputs(
        torch.from_numpy(values),
        torch.from_numpy(mask),
        torch.tensor(prompt_len, dtype=torch.int64),
        np.stack([ends - counts, ends, counts], axis=1),
    )
