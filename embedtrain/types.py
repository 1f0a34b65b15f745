"""The values that flow through the program, all NamedTuples of tensors, and the one error a user can mend.

Letters: B queries, b some of them, N documents (positives and negatives), C candidates over all ranks,
M distinct contents, T tokens, H hidden width, D embedding width, G width of a guide model, L layers kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast, get_args

if TYPE_CHECKING:  # commands answer a mistyped word without loading torch
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

Role = Literal["query", "document"]
Content = Any  # what is embedded: a text, or whatever hashable a `Processor` reads and `content_id` knows


class InputError(ValueError):
    """Something the user can mend. The message names the place and the cure; the CLI shows it alone."""


class SubModel(NamedTuple):
    """One cut of the model: run `layer` blocks, keep the first `dim` coordinates."""

    layer: int  # transformer blocks run, 1..num_layers; never a hidden-state index, never negative
    dim: int  # leading coordinates kept, 1..D

    def __str__(self) -> str:
        return f"L{self.layer}_D{self.dim}"


class Weighted(NamedTuple):
    """A sub-model trained at this step and the weight of its loss."""

    sub: SubModel
    weight: float


Dtype = Literal["float32", "int8", "binary", "binary_rescore", "binary_rescore_int8"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)


class Cell(NamedTuple):
    """One size of a model as a vector store would hold it: what an evaluation measures.

    int8 has a number of 0..255 a coordinate, binary its sign. `binary_rescore` searches by signs and ranks
    what that finds again with the float32 query; its documents are then signs too, those of
    `binary_rescore_int8` are int8 and lie beside the signs.
    """

    layer: int
    dim: int
    dtype: Dtype = "float32"

    @property
    def sub(self) -> SubModel:
        """The cut of the model."""
        return SubModel(self.layer, self.dim)

    @property
    def bytes_per_vector(self) -> int:
        """What one document takes in a store."""
        signs = -(-self.dim // 8)
        larger = {"float32": 4 * self.dim, "int8": self.dim, "binary_rescore_int8": signs + self.dim}
        return larger.get(self.dtype, signs)

    def __str__(self) -> str:
        return str(self.sub) if self.dtype == "float32" else f"{self.sub}_{self.dtype}"


Chosen = tuple[Weighted, ...]


class Inputs(NamedTuple):
    """Contents as a backbone reads them; padding may be on either side. Lengths are known on the host."""

    values: Tensor  # (M, T) int64 token ids of texts, or (M, T, F) numbers of another modality
    mask: Tensor  # (M, T) bool, True on real tokens
    prompt_len: Tensor  # (M,) int64, leading real tokens that pooling skips
    spans: NDArray[np.int64] | None = None  # (M, 3) host: first real column, one past the last, real tokens
    keys: NDArray[np.void] | None = None  # (M,) host: equal where a model reads the same (`text_keys`)

    def rows(self, index: Tensor | slice) -> Inputs:
        """The contents of `index`, in that order; with an index of the host, `spans` and `keys` too."""
        from embedtrain.transfers import moved

        if isinstance(index, slice):
            here: Any = index
            there: Any = index
        else:
            here = index.numpy() if index.device.type == "cpu" else None
            there = moved(index, self.values.device)
        values, mask, prompt_len = (part[there] for part in self[:3])
        own: list[Any] = [None if part is None or here is None else part[here] for part in self[3:]]
        return Inputs(values, mask, prompt_len, *own)

    def to_device(self, device: torch.device) -> Inputs:
        """The same there; not called `to`, or Lightning would move a pinned batch without `non_blocking`."""
        from embedtrain.transfers import moved

        values, mask, prompt_len = (moved(part, device) for part in self[:3])
        return self._replace(values=values, mask=mask, prompt_len=prompt_len)


class Processor(Protocol):
    """Contents of one role to `Inputs`, each truncated to the model's maximum length."""

    def __call__(
        self, contents: Sequence[Content], role: Role, prompts: Sequence[str | None] | None = None, /
    ) -> Inputs:
        """Inputs of M contents.

        `prompts` has one a content: None, as without prompts, is the model's own of that role; "" is none.
        """
        ...


class Links(NamedTuple):
    """Which content plays which part in a batch: all that a pairing is decided from."""

    content_ids: Tensor  # (M,) int64 equal contents have equal ids, whatever their role
    query: Tensor  # (B,) int64 row among the M contents
    docs: Tensor  # (N,) int64 row among the M contents: positives and ragged negatives
    owner: Tensor  # (N,) int64 query 0..B-1 that brought this document
    positive: Tensor  # (B,) int64 position in `docs` of the query's positive
    known: Tensor  # (K,) int64 content ids of every labelled positive, used in this batch or not
    known_owner: Tensor  # (K,) int64 query 0..B-1 of each
    task: Tensor  # (B,) int64, queries of different tasks never contrast
    rows: Tensor  # (B,) int64 row number in the data, for messages
    scores: Tensor | None  # (B,) float32 graded similarity of each query and its positive; NaN where unknown
    teacher: Tensor | None = None  # (N,) float32 a teacher's score of a document for its owner; NaN likewise

    def shifted(self, contents: int, queries: int, docs: int) -> Links:
        """The same links in a larger batch, behind the contents, queries and documents of others."""
        return self._replace(
            query=self.query + contents,
            docs=self.docs + contents,
            owner=self.owner + queries,
            positive=self.positive + docs,
            known_owner=self.known_owner + queries,
        )

    def to_device(self, device: torch.device) -> Links:
        """The same there."""
        from embedtrain.transfers import moved_together

        return Links(*moved_together(self, device))  # type: ignore[arg-type]


class Batch(NamedTuple):
    """What one rank trains on at one step: every distinct content once, and who belongs to whom."""

    inputs: Inputs
    links: Links  # of the host: who belongs together is worked out there
    guide: Inputs | None = None  # the same M contents as the guide model reads them

    @property
    def rows(self) -> Tensor:
        """(B,) row numbers in the data."""
        return self.links.rows

    def to_device(self, device: torch.device) -> Batch:
        """The same with its contents there."""
        guide = None if self.guide is None else self.guide.to_device(device)
        return Batch(self.inputs.to_device(device), self.links, guide)


class Embeddings(NamedTuple):
    """Pooled vectors of M contents after each kept layer."""

    values: Tensor  # (L, M, D) float32, not normalised
    layers: tuple[int, ...]  # ascending, block counts

    def raw(self, sub: SubModel) -> Tensor:
        """The un-normalised prefix, (M, sub.dim).

        Raises:
            ValueError: if the layer was not kept or the dim is outside 1..D.
        """
        width = self.values.shape[-1]
        if sub.layer not in self.layers:
            raise ValueError(f"layer {sub.layer} was not kept, layers are {list(self.layers)}")
        if not 1 <= sub.dim <= width:
            raise ValueError(f"dim must be in 1..{width}, got {sub.dim}")
        return self.values[self.layers.index(sub.layer), :, : sub.dim]

    def at(self, sub: SubModel) -> Tensor:
        """Unit rows of one sub-model, (M, sub.dim): truncated first, normalised after."""
        import torch.nn.functional as F

        return F.normalize(self.raw(sub), dim=-1)

    def rows(self, index: Tensor) -> Embeddings:
        """The contents of `index` (R,), in that order: (L, R, D)."""
        from embedtrain.transfers import moved

        return Embeddings(self.values.index_select(1, moved(index, self.values.device)), self.layers)


BlockName = Literal["query_docs", "query_queries", "doc_queries", "doc_docs"]


class Blocks(NamedTuple):
    """Something about some queries (rows, b of B) against everything: similarities, or what is allowed.

    The rows of `doc_queries` and `doc_docs` are the positives of those queries. Others are None.
    """

    query_docs: Tensor  # (b, C)
    query_queries: Tensor | None = None  # (b, B)
    doc_queries: Tensor | None = None  # (b, B)
    doc_docs: Tensor | None = None  # (b, C)


class RowFacts(NamedTuple):
    """Which queries the rows of `Blocks` are."""

    rows: Tensor  # (b,) int64 query 0..B-1 of each row
    target: Tensor  # (b,) int64 column of its positive among the C candidates
    step: int  # optimiser step: schedules are functions of it
    owner: Tensor | None = None  # (C,) int64 as in `Pairing`
    positive: Tensor | None = None  # (C,) bool, the positive of some query
    here: Tensor | None = None  # (b,) `rows` on the host; None where nobody knows them there


class Allowed(NamedTuple):
    """Who may be a negative of some queries, and what was taken out."""

    blocks: Blocks  # bool; query_docs is True at the target, doc_queries at the row's own query
    considered: Tensor  # (b,) int64 documents that could have been negatives before the rules
    removed: dict[str, Tensor]  # rule -> (b,) int64 documents of query_docs that it took out


class Candidates(Protocol):
    """Who may be a negative of whom: decided once per batch, worked out for the rows asked for."""

    @property
    def needs_student(self) -> bool:
        """Whether `allowed` wants the similarities that the trained model itself sees."""
        ...

    def allowed(self, rows: Tensor, names: Collection[BlockName], student: Blocks | None) -> Allowed:
        """What queries `rows` (b,) may be contrasted with, in each named block.

        Args:
            rows: query numbers, best of the host.
            names: blocks to fill; query_docs is always filled.
            student: detached cosines of the step's largest sub-model, the same blocks; None unless needed.
        """
        ...


class Guide(NamedTuple):
    """Unit vectors of a guide model for the same queries and candidates."""

    query: Tensor  # (B, G)
    docs: Tensor  # (C, G)


class Pairing(NamedTuple):
    """Who is positive and who may be negative, decided once per batch for every sub-model."""

    target: Tensor  # (B,) int64 column of each query's positive among the C candidates
    owner: Tensor  # (C,) int64 query that brought the document; -1 for one of an earlier step
    task: Tensor  # (B,) int64
    step: int  # optimiser step
    candidates: Candidates
    scores: Tensor | None = None  # (B,) float32 graded similarity of query and target; NaN where unknown
    teacher: Tensor | None = None  # (C,) float32 a teacher's score of a document for its owner; NaN likewise
    guide: Guide | None = None
    here: Pairing | None = None  # the same of the host, which decides; None where all is there


class Score(NamedTuple):
    """One measured number: a line of scores.jsonl, the only thing reports read."""

    run: str
    step: int  # optimiser steps taken; 0 is the untouched backbone
    task: str
    split: str
    layer: int
    dim: int
    metric: str
    value: float
    dtype: str = "float32"  # of the vectors (`Cell`); last, since older files do not have it

    @property
    def cell(self) -> Cell:
        """What was measured; a funnel's dtype is its name."""
        return Cell(self.layer, self.dim, cast(Dtype, self.dtype))


def distinct_layers(chosen: Sequence[Weighted]) -> tuple[int, ...]:
    """The layers a step needs, ascending."""
    return tuple(sorted({item.sub.layer for item in chosen}))
