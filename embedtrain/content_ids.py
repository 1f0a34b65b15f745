"""Numbers that are the same for equal contents, wherever they are worked out."""

from __future__ import annotations

import hashlib

from embedtrain.types import Content


def content_id(content: Content) -> int:
    """A number of 63 bits that is the same for equal contents on every rank and machine (blake2b).

    A content is a text, bytes, numbers (an array, or tuples of one length each), or has a `content_id`.

    Raises:
        TypeError: for another kind of content.
    """
    if isinstance(content, str):
        return _hashed(content.encode())
    own = getattr(content, "content_id", None)
    if own is not None:
        return int(own)
    if isinstance(content, bytes):
        return _hashed(content, b"bytes")
    import numpy as np

    try:
        numbers = np.asarray(content, np.float64) + 0.0  # -0.0 equals 0.0
    except (TypeError, ValueError):
        numbers = np.zeros(())
    if not numbers.ndim:
        raise TypeError(f"{type(content).__name__} is no content: give it a number `content_id`")
    return _hashed(numbers.tobytes(), str(numbers.shape).encode())


def _hashed(data: bytes, kind: bytes = b"") -> int:
    """`kind` separates contents of equal bytes; 16 of its bytes count."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=kind[:16]).digest(), "big") >> 1
