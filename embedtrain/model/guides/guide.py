"""A guide: a frozen model that says which texts are alike, beside the model in training.

Any model that `load_encoder` or sentence-transformers reads, with its own tokenizer and prompts, whole or cut
to a cheap sub-model. It is no `nn.Module`, so that no optimiser, checkpoint or DDP sees it.

Letters: M texts, T tokens, D width of the model, G width of its vectors as guide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedtrain.devices import multiplies_bfloat16
from embedtrain.files.reading import reason_of
from embedtrain.model.encoder import Encoder
from embedtrain.model.folder.contract import text_hash
from embedtrain.model.folder.describe import weights_hash
from embedtrain.model.folder.export import load_encoder
from embedtrain.model.guides.keys import text_keys
from embedtrain.model.locate import locate
from embedtrain.transfers import moved
from embedtrain.types import Embeddings, InputError, Inputs, Processor
from embedtrain.vectors.store import VectorStore, VectorType

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Vectors(Protocol):
    """A model on `Inputs`."""

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        ...

    @property
    def process(self) -> Processor:
        """Texts to tokens; picklable, without the model."""
        ...

    @property
    def width(self) -> int:
        """D."""
        ...

    @property
    def identity(self) -> str:
        """40 hexadecimal digits that name whatever decides a vector but the tokens."""
        ...

    def vectors(self, tokens: Inputs) -> Tensor:
        """(M, D), not normalised; M is 1 or more."""
        ...


class EncoderVectors:
    """One layer of an `Encoder`; the blocks above it are not run."""

    def __init__(self, encoder: Encoder, layer: int) -> None:
        self.module: nn.Module = encoder
        self.encoder, self.layer = encoder, layer
        self.process: Processor = encoder.process
        self.width = encoder.width

    @property
    def identity(self) -> str:
        """Of weights, settings and layer."""
        return text_hash(f"{weights_hash(self.encoder)} layer {self.layer}")

    def vectors(self, tokens: Inputs) -> Tensor:
        """(M, D), not normalised."""
        embeddings: Embeddings = self.encoder(tokens, (self.layer,))
        return embeddings.values[0]


class GuideModel:
    """Unit vectors of a frozen model, each distinct text encoded once a call, or not at all if cached.

    Args:
        model: gives vectors; frozen here, in eval mode for good.
        dim: G, leading coordinates kept before normalising; all of them when None.
        cache: folder of vectors on disk; none when None.
        cache_dtype: of the vectors there.
        quick: compute in bfloat16 on a GPU that multiplies it, and in the dtype of the weights elsewhere.

    Raises:
        InputError: for a dim out of range, or a cache that is not to be used.
    """

    def __init__(
        self,
        model: Vectors,
        *,
        dim: int | None = None,
        cache: str | Path | None = None,
        cache_dtype: VectorType = "float32",
        quick: bool = False,
    ) -> None:
        if dim is not None and not 1 <= dim <= model.width:
            raise InputError(f"dim must be in 1..{model.width} for this guide, got {dim}")
        self.model = model
        model.module.eval().requires_grad_(False)
        self.process = model.process  # what data workers take along
        self.width = model.width if dim is None else dim
        self.dtype, self.quick = next(model.module.parameters()).dtype, quick
        self.cache: VectorStore | None = None
        if cache is not None:
            known = model.identity

            def store() -> VectorStore:
                identity = text_hash(f"{known} {self.dtype} dim {self.width}")
                return VectorStore(cache, identity=identity, width=self.width, dtype=cache_dtype)

            self.cache, self._store = store(), store

    def to(self, device: torch.device) -> GuideModel:
        """Move the model, and compute as fits the device; `embed` does so by itself."""
        weight = next(self.model.module.parameters())
        if weight.device != device:
            self.model.module.to(device)
            before = self.dtype
            self.dtype = torch.bfloat16 if self.quick and multiplies_bfloat16(device) else weight.dtype
            if self.cache is not None and self.dtype != before:
                self.cache = self._store()
        return self

    @torch.no_grad()
    def embed(self, tokens: Inputs) -> Tensor:
        """Unit vectors (M, G), float32, where the tokens are; a text of no tokens may have the zero vector.

        Equal tokens are encoded once. With a cache, vectors are rounded to its dtype whether or not they were
        in it, so that a resumed run sees what an unbroken one saw.

        Raises:
            InputError: for a cache that cannot be written.
        """
        device = tokens.values.device
        known = text_keys(tokens) if tokens.keys is None else tokens.keys
        keys: list[bytes] = known.tolist()
        rows: dict[bytes, int] = {}  # first text of each of the U distinct ones
        for row, key in enumerate(keys):
            rows.setdefault(key, row)
        distinct = tokens.rows(torch.tensor(list(rows.values()), dtype=torch.int64))  # U of them
        if self.cache is None:
            vectors = self._encoded(distinct)  # (U, G)
        else:
            vectors = self._cached(self.cache, list(rows), distinct)
        place = {key: number for number, key in enumerate(rows)}
        return vectors[moved(torch.tensor([place[key] for key in keys], dtype=torch.int64), device)]

    def _cached(self, cache: VectorStore, keys: Sequence[bytes], tokens: Inputs) -> Tensor:
        """As `_encoded`, with a forward for those texts only that the cache does not have."""
        there, known = cache.find(keys)
        hit = torch.from_numpy(there)  # (U,)
        result = torch.empty(len(keys), self.width)
        result[hit] = torch.from_numpy(known).float()
        if not bool(hit.all()):
            miss = (~hit).nonzero()[:, 0]
            fresh = self._encoded(tokens.rows(miss)).cpu().numpy()
            result[miss] = torch.from_numpy(cache.rounded(fresh)).float()
            cache.add([keys[row] for row in miss.tolist()], fresh)
        return moved(result, tokens.values.device)

    def _encoded(self, tokens: Inputs) -> Tensor:
        device = tokens.values.device
        if not len(tokens.values):
            return torch.empty(0, self.width, device=device)
        self.to(device)
        # The guide's precision is its own: the precision of the training run must not change its vectors.
        quick = self.dtype != next(self.model.module.parameters()).dtype
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=quick):
            return F.normalize(self.model.vectors(tokens).float()[:, : self.width], dim=-1)


def load_guide(
    path: str | Path,
    *,
    layer: int | None = None,
    dim: int | None = None,
    max_length: int | None = None,
    dtype: str = "auto",
    prompts: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
    cache_dtype: VectorType = "float32",
    trust_remote_code: bool = False,
) -> GuideModel:
    """The guide in a folder or of a hub name: one that `load_encoder` reads, or else sentence-transformers.

    Args:
        path: folder or hub name; the model that training starts from is one like any other.
        layer: blocks to run; all when none.
        dim: leading coordinates kept; all when none.
        max_length: longest text in tokens; the model's own when none.
        dtype: float32, bfloat16 or float16, of its weights; auto for float32 weights, whose products a GPU
            takes in bfloat16 where it has that.
        prompts: text put before every text, by role ("query", "document"); the model's own when none. Prompts
            of the training data are not given to it.
        cache: folder of vectors, reused between steps, epochs and runs; none for no cache.
        cache_dtype: float32 or float16, of the vectors there.
        trust_remote_code: run the code that lies in its folder, modules of sentence-transformers too.

    Raises:
        InputError: for a model that neither reads, a cut out of range, or a cache that is not to be used.
    """
    if dtype not in ("auto", *DTYPES):
        raise InputError(f"dtype must be one of auto, {', '.join(DTYPES)}, got {dtype!r}")
    weights = DTYPES.get(dtype, torch.float32)
    folder = locate(path, code=trust_remote_code)
    model: Vectors
    try:
        encoder = load_encoder(
            path,
            max_length=max_length,
            dtype=weights,
            prompts=prompts,
            trust_remote_code=trust_remote_code,
        )
    except InputError as error:
        if not (folder / "modules.json").is_file() or (folder / "embedtrain.json").is_file():
            raise
        if layer is not None:
            raise InputError(f"{path} cannot be cut to layer {layer}: {error}") from error
        model = _sentence_model(
            folder, error, weights, max_length, prompts, trust_remote_code=trust_remote_code
        )
    else:
        last = encoder.num_layers
        if layer is not None and not 1 <= layer <= last:
            raise InputError(f"layer must be in 1..{last} for the guide {path}, got {layer}")
        model = EncoderVectors(encoder, last if layer is None else layer)
    return GuideModel(model, dim=dim, cache=cache, cache_dtype=cache_dtype, quick=dtype == "auto")


def _sentence_model(
    folder: Path,
    refused: InputError,
    dtype: torch.dtype,
    max_length: int | None,
    prompts: Mapping[str, str] | None,
    *,
    trust_remote_code: bool,
) -> Vectors:
    """The model as sentence-transformers has it, which takes long to import and is seldom needed."""
    from embedtrain.model.guides.sentence_transformer import SentenceVectors

    try:
        return SentenceVectors(
            folder, dtype=dtype, max_length=max_length, prompts=prompts, trust_remote_code=trust_remote_code
        )
    except InputError:
        raise
    except Exception as error:  # whatever a library of many authors' modules raises
        raise InputError(
            f"{folder} is no guide: {refused}; sentence-transformers says {reason_of(error)}"
        ) from error
