"""The model whose scores decide: any that a guide can be, with all that names its vectors.

Letters: n texts, G width of its vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.devices import device_of
from embedtrain.model.folder.contract import text_hash, tokenizer_hash
from embedtrain.model.guides.guide import GuideModel, load_guide
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.types import Inputs, Role


class Embeds(Protocol):
    """Texts to unit vectors."""

    width: int

    @property
    def identity(self) -> str:
        """Hexadecimal digits that name whatever decides a vector but role, prompt and text."""
        ...

    def read(self, texts: Sequence[str], role: Role, prompts: Sequence[str | None] | None = None) -> Any:  # noqa: ANN401
        """Texts as `vectors` takes them; a prompt of None is the model's own of that role."""
        ...

    def vectors(self, read: Any, /) -> NDArray[np.float32]:  # noqa: ANN401
        """(n, G) unit vectors of what was read."""
        ...


class Teacher:
    """A frozen model that embeds texts.

    Args:
        guide: the model.
        source: what the user called it.
        device: where it runs.
    """

    def __init__(self, guide: GuideModel, source: str, device: torch.device) -> None:
        self.guide, self.source, self.device = guide.to(device), source, device
        self.width = guide.width
        self.identity = _identity(guide)

    def read(self, texts: Sequence[str], role: Role, prompts: Sequence[str | None] | None = None) -> Inputs:
        """Texts as the model reads them, on the host."""
        return self.guide.process(texts, role, prompts)

    def vectors(self, read: Inputs, /) -> NDArray[np.float32]:
        """(n, G) unit vectors; texts of like length go through the model together."""
        vectors: NDArray[np.float32] = self.guide.embed(read.to_device(self.device)).cpu().numpy()
        return vectors

    def embed(
        self, texts: Sequence[str], role: Role, prompts: Sequence[str | None] | None = None
    ) -> NDArray[np.float32]:
        """(n, G) unit vectors of texts."""
        return self.vectors(self.read(texts, role, prompts))


def load_teacher(
    path: str | Path,
    *,
    layer: int | None = None,
    dim: int | None = None,
    max_length: int | None = None,
    dtype: str = "auto",
    prompts: Mapping[str, str] | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Teacher:
    """The teacher in a folder or of a hub name; the settings are those of `load_guide`.

    Args:
        path: what `load_encoder` or sentence-transformers reads.
        layer: blocks to run, the first ones.
        dim: coordinates to keep, the first ones.
        max_length: longest text in tokens; the model's own when none.
        dtype: as of `load_guide`.
        prompts: text put before every text, by role; the model's own when none.
        device: as `device_of`.
        trust_remote_code: as of `load_guide`.

    Raises:
        InputError: as `load_guide`; for a device that the machine does not have.
    """
    guide = load_guide(
        path,
        layer=layer,
        dim=dim,
        max_length=max_length,
        dtype=dtype,
        prompts=prompts,
        trust_remote_code=trust_remote_code,
    )
    return Teacher(guide, str(path), device_of(device))


def _identity(guide: GuideModel) -> str:
    """Of weights, settings, tokenizer, prompts, longest text, precision and dim.

    A model that `load_encoder` read knows its tokenizer; one of sentence-transformers has it named here.
    """
    process = guide.process
    if isinstance(process, TextTokenizer):
        reads = f"{tokenizer_hash(process.tokenizer)} {process.max_length} {process.include_prompt}"
        prompts: object = {role: process.prompts.get(role, "") for role in ("query", "document")}
    else:
        static: Any = process  # of a static embedding
        reads, prompts = static.tokenizer.to_str(), sorted(static.prompts.items())
    text = f"{guide.model.identity} {guide.dtype} dim {guide.width} {reads} {prompts}"
    return text_hash(text)
