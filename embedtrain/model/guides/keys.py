"""What names a text as a model reads it, worked out where batches are made."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from embedtrain.types import Inputs
from embedtrain.vectors.records import KEY_BYTES


def text_keys(tokens: Inputs) -> NDArray[np.void]:
    """(M,) keys of 16 bytes that are equal just where a model reads the same: real tokens and what is pooled.

    So a key knows prompt, role and truncation, and not padding.
    """
    ids, mask = tokens.values.cpu().numpy(), tokens.mask.cpu().numpy()
    skips = tokens.prompt_len.tolist()
    keys = [
        hashlib.blake2b(row[real].tobytes() + skip.to_bytes(4, "little"), digest_size=KEY_BYTES).digest()
        for row, real, skip in zip(ids, mask, skips, strict=True)
    ]
    return np.array(keys, dtype=f"V{KEY_BYTES}")
