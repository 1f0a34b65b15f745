"""Contents to embeddings after any layers, in length-sorted micro-batches so that little is padding.

Letters: M contents, T tokens, L layers kept, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from embedtrain.ahead import ahead, one_behind
from embedtrain.devices import memory_of
from embedtrain.model.backbone.backbone import Backbone
from embedtrain.model.inputs.groups import MicroBatch, alone, cheaper, in_one_row, sharing
from embedtrain.model.inputs.micro_batches import (
    CPU_MAX_TOKENS,
    device_tokens,
    in_order,
    lengths_of,
    micro_batches,
    rows_alone,
    with_spans,
)
from embedtrain.model.inputs.packing import pack, unpack
from embedtrain.model.inputs.processor import LayeredBackbone, Reader, can_pack
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.model.modes import casting_once, evaluating
from embedtrain.model.pooling import Pooling, pool_mask, pooled_width
from embedtrain.model.reordered import Reordered
from embedtrain.model.rotation.rotation import Rotation
from embedtrain.model.token_table import looked_up
from embedtrain.transfers import fetched, moved
from embedtrain.types import Content, Embeddings, InputError, Inputs, Role, SubModel

CPU_OVERHEAD, CPU_ENCODING_OVERHEAD = 128, 48  # padding worth a micro-batch (docs/training.md, Padding)
WINDOW = 16_384  # contents read and sorted at a time by `encode`, so that memory stays bounded
DEVICE_WINDOW = 2_048  # the same on a device, which the next ones are read beside

Progress = Callable[[int, int], None]  # contents done, contents in all
Agree = Callable[[Sequence[int]], list[int]]  # numbers of a process to the largest of all processes
Waiting = tuple[list[int], Callable[[], Tensor]]  # numbers of contents, and what gives their vectors
B = TypeVar("B", bound=LayeredBackbone, default=Backbone)
P = TypeVar("P", bound=Reader, default=TextTokenizer)


class Encoder(nn.Module, Generic[B, P]):
    """Backbone, pooling and processor as one: the embedding model that is trained and measured.

    Plain `Encoder` is the one for texts: only it is saved, exported and examined by the doctor.

    Args:
        backbone: gives the state after each block.
        pooling: makes one vector of the states of a content (an `nn.Module`).
        process: contents of a role to inputs, their prompts and end token included.
        width: D, leading coordinates of the pooled vector that exist; None for all of them.
        rotation: what turns the pooled vectors of its layers, which then have its width.
        normalize: whether a shipped full model ends in a unit vector.
        max_tokens: rows x padded length of a micro-batch; None fits the device.
        packing: whether contents may share a row, each with attention inside itself. It changes no embedding.
            None: on a CPU, where it saves tokens and the backbone can.
        trained: sub-models that training aimed at.
        source: name of the folder or hub model that this one came from.
        origin: the folder, file or hub name that its backbone was loaded from, for an adapter to find it.

    Attributes:
        agree: numbers of micro-batches to those of the processes which have most; where set, all processes
            run equally many, since running the backbone is a message between them.

    Raises:
        InputError: when the longest content of `process`, `width` or `max_tokens` does not fit the backbone,
            or it cannot pack.
    """

    def __init__(
        self,
        backbone: B,
        pooling: Pooling,
        process: P,
        *,
        width: int | None = None,
        rotation: Rotation | None = None,
        normalize: bool = True,
        max_tokens: int | None = None,
        packing: bool | None = None,
        trained: Sequence[SubModel] = (),
        source: str = "",
        origin: str = "",
    ) -> None:
        super().__init__()
        positions, max_length = backbone.max_positions, process.max_length
        if max_length < 1 or (positions is not None and max_length > positions):
            raise InputError(f"max_length must be in 1..{positions} for this backbone, got {max_length}")
        widest = pooled_width(pooling, backbone.hidden_size)
        if width is not None and not 1 <= width <= widest:
            raise InputError(f"width must be in 1..{widest} for this backbone and pooling, got {width}")
        if max_tokens is not None and max_tokens < 1:
            raise InputError(f"max_tokens must be positive, got {max_tokens}")
        self.backbone = backbone
        self.pooling = pooling
        self.process = process
        self.width = widest if width is None else width
        self.rotation: Rotation | None = None
        if rotation is not None:
            self.rotate(rotation)
        self.normalize = normalize
        self.max_tokens = max_tokens
        self.packing = packing
        if packing:
            backbone.expect_packing()
        self.trained = tuple(trained)
        self.source, self.origin = source, origin
        self.license, self.datasets = "", tuple[str, ...]()  # for the card
        self.agree: Agree | None = None
        self._can_pack: bool | None = None  # not tried yet
        self._reordered = Reordered()

    @property
    def num_layers(self) -> int:
        """Transformer blocks of the backbone."""
        return self.backbone.num_layers

    @property
    def max_length(self) -> int:
        """Longest content in tokens, special ones included."""
        return self.process.max_length

    @property
    def prompts(self) -> Mapping[str, str]:
        """The prompt before texts of a role; of a task name or type, for evaluation."""
        return self.process.prompts

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def micro_batch_tokens(self) -> int:
        """Rows x padded length of a micro-batch: `max_tokens`, or what fits the device."""
        if self.max_tokens is not None:
            return self.max_tokens
        if self.device.type == "cpu":
            return CPU_MAX_TOKENS
        return device_tokens(memory_of(self.device), self.num_layers, self.backbone.hidden_size)

    def rotate(self, rotation: Rotation) -> None:
        """Turn the vectors of the layers of `rotation` by it from now on, in the place of another.

        Raises:
            InputError: when it is not for vectors of this pooling and width.
        """
        widest = pooled_width(self.pooling, self.backbone.hidden_size)
        if rotation.width != self.width or rotation.taken > widest:
            raise InputError(
                f"the rotation turns vectors of {rotation.taken} coordinates to {rotation.width}, and this "
                f"model pools {widest} and has {self.width}: take the pooling that the rotation was made for"
            )
        self.rotation = rotation

    def forwards(self, lengths: Sequence[int]) -> int:
        """Micro-batches of contents of these lengths."""
        return len(self._groups(lengths))

    def forward(self, inputs: Inputs, layers: Sequence[int], agreed: int | None = None) -> Embeddings:
        """Embeddings (L, M, D) after each distinct layer of `layers`, in the order of inputs, with gradient.

        `agreed` are the micro-batches that all processes run; where they must agree and did not, they do.

        Raises:
            ValueError: for a content without tokens or a layer outside 0..num_layers.
        """
        kept = tuple(sorted(set(layers)))
        inputs = with_spans(inputs)
        groups = self._groups(lengths_of(inputs))
        once = nullcontext() if self.agree is not None else casting_once(self.device.type)
        with self._lookup(inputs, len(groups)), once:
            parts = [self._embed(rows_alone(inputs, group.rows), kept, group) for group in groups]
        if self.agree is not None:
            most = self.agree([len(groups)])[0] if agreed is None else agreed
            parts += [self._idle(inputs, kept) for _ in range(most - len(groups))]
        if not parts:
            return Embeddings(self._empty(kept, 0, self.device), kept)
        return Embeddings(in_order(parts, [group.rows for group in groups]), kept)

    def encode(
        self,
        contents: Sequence[Content],
        layers: Sequence[int],
        role: Role = "document",
        progress: Progress | None = None,
        *,
        prompt: str | None = None,
    ) -> Embeddings:
        """Embeddings (L, M, D) of contents on the CPU, without gradient or dropout.

        The mode of every module (train or eval) is as before afterwards. `progress` is called with the
        number of contents done and of all. `prompt` is put before every content; None is the role's own.
        While some contents are encoded, the next are read on another thread.
        """
        kept = tuple(sorted(set(layers)))
        values = self._empty(kept, len(contents), torch.device("cpu"))
        done = 0
        with self._reordered.used(self, keep=not self.training), evaluating(self), torch.no_grad():
            for rows, part in one_behind(self._encoded(contents, kept, role, prompt)):
                values[:, torch.tensor(rows)] = part()
                done += len(rows)
                if progress is not None:
                    progress(done, len(contents))
        return Embeddings(values, kept)

    def _encoded(
        self, contents: Sequence[Content], layers: tuple[int, ...], role: Role, prompt: str | None
    ) -> Iterator[Waiting]:
        """Numbers of contents and what gives their vectors (L, m, D), a micro-batch at a time."""
        size = WINDOW if self.device.type == "cpu" else DEVICE_WINDOW

        def read(begin: int) -> Sequence[Any]:
            window = contents[begin : begin + size]
            return self.process.read(window, role, [prompt] * len(window))

        begins = range(0, len(contents), size)
        for begin, window in zip(begins, ahead(begins, read), strict=True):
            for group in self._groups([one.length for one in window]):
                inputs = self.process.pad([window[row] for row in group.rows])
                part = self._embed(inputs.to_device(self.device), layers, group)
                yield [begin + row for row in group.rows], fetched(part)

    def _lookup(self, inputs: Inputs, forwards: int) -> AbstractContextManager[None]:
        """One lookup of the tokens of all micro-batches; one each where ranks share the table."""
        if forwards < 2 or self.agree is not None or not isinstance(self.backbone, Backbone):
            return nullcontext()
        return looked_up(self.backbone.model, inputs.values)

    def _embed(self, inputs: Inputs, layers: tuple[int, ...], group: MicroBatch) -> Tensor:
        """One micro-batch, (L, m, D)."""
        asked = self.asked(layers)
        if not group.shares:
            return self.pooled(self.backbone(inputs, asked), inputs.mask, inputs.prompt_len, layers)
        packed = pack(inputs, group.counts, group.lengths)
        states = self.backbone(packed, asked)
        alike = micro_batches(group.lengths, *self._budget())  # rectangles with little padding
        parts = []
        for some in alike:
            own, mask = unpack(packed, states, some)
            prompt_len = inputs.prompt_len[moved(torch.tensor(some), mask.device)]
            parts.append(self.pooled(own, mask, prompt_len, layers))
        return in_order(parts, alike)

    def asked(self, layers: tuple[int, ...]) -> tuple[int, ...]:
        """The layers whose states `pooled` needs for vectors at ascending `layers`."""
        return tuple(range(1, max(layers) + 1)) if self.pooling.needs_all_layers else layers

    def pooled(
        self, states: Sequence[Tensor], mask: Tensor, prompt_len: Tensor, layers: tuple[int, ...]
    ) -> Tensor:
        """Vectors (L, m, D) at `layers` of states (m, T, H) after `asked(layers)`, in float32."""
        every = self.pooling.needs_all_layers
        pooled_mask = pool_mask(mask, prompt_len)
        # Autocast would run the products of a pooling in bfloat16; sums over tokens need float32.
        with torch.autocast(mask.device.type, enabled=False):
            pooled = [
                self.pooling(states[:layer] if every else states[position : position + 1], pooled_mask, layer)
                for position, layer in enumerate(layers)
            ]
            if self.rotation is not None:
                pooled = [self.rotation(each, layer) for each, layer in zip(pooled, layers, strict=True)]
        return torch.stack(pooled)[..., : self.width]

    def _idle(self, inputs: Inputs, layers: tuple[int, ...]) -> Tensor:
        """No embeddings, (L, 0, D), of a backbone that has run all the same and has a gradient of 0."""
        one = torch.ones(1, 1, dtype=torch.int64, device=self.device)
        values = inputs.values.new_zeros((1, 1, *inputs.values.shape[2:]), device=self.device)
        single = Inputs(values, one > 0, one[0] * 0, np.array([[0, 1, 1]]))
        embedded = self._embed(single, layers, MicroBatch([0], [1], [1]))
        return embedded[:, :0] + 0.0 * embedded.sum()

    def _groups(self, lengths: Sequence[int]) -> list[MicroBatch]:
        budget, overhead = self._budget()
        if self.packing is None and overhead is not None and self.agree is None:
            groups = cheaper(lengths, budget, overhead)
            if self._can_pack is None and any(group.shares for group in groups):
                self._can_pack = can_pack(self.backbone, self.device)
            return groups if self._can_pack is not False else alone(lengths, budget, overhead)
        shared = in_one_row if getattr(self.backbone, "varlen", False) else sharing
        return (shared if self.packing else alone)(lengths, budget, overhead)

    def _budget(self) -> tuple[int, int | None]:
        """Tokens of a micro-batch, and what of padding is worth another one."""
        overhead = CPU_OVERHEAD if self.training else CPU_ENCODING_OVERHEAD
        return self.micro_batch_tokens, overhead if self.device.type == "cpu" else None

    def _empty(self, layers: tuple[int, ...], count: int, device: torch.device) -> Tensor:
        wide = torch.float64 if next(self.parameters()).dtype == torch.float64 else torch.float32
        return torch.empty(len(layers), count, self.width, dtype=wide, device=device)
