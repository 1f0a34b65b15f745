"""A file of tokenised texts: a header, then blocks of ragged records, only ever appended.

All is little-endian words of four bytes. A block is its mark (2 words), the number n of its records, a CRC
of what else leads it, the lengths (n,) of the texts, then the records: key (4 words), length, tokens that
pooling skips, checksum, token ids. The lengths in front make a block readable without a loop over its texts.

A writer that dies inside a block leaves a tail that is not read. A block whose beginning is damaged is passed
over up to the next mark; a damaged record is known by its checksum.

Letters: n records, T token ids of all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16
HEADER_WORDS = 16
HEAD = 7  # words of a record before its ids
_MAGIC, _MARK = b"ETTOK001", b"ETBLOCK1"
_WORD = np.dtype("<u4")
_LENGTH, _PROMPT, _CHECK = 4, 5, 6

Words = NDArray[np.uint32]
Places = NDArray[np.int64]


class Ragged(NamedTuple):
    """Texts as token ids, one behind the other."""

    ids: NDArray[np.int32]  # (T,)
    lengths: NDArray[np.int64]  # (n,)
    prompt_len: NDArray[np.int64]  # (n,) leading tokens that pooling skips


class Block(NamedTuple):
    """Where the records of a block are."""

    keys: NDArray[np.uint8]  # (n, KEY_BYTES)
    places: Places  # (n,) first word of each record
    end: int  # first word behind the block


def make_header(identity: str) -> bytes:
    """What a file of this identity (40 hexadecimal digits) starts with; ends in a checksum of itself."""
    text = (_MAGIC + identity.encode()).ljust((HEADER_WORDS - 1) * _WORD.itemsize, b"\0")
    return text + zlib.crc32(text).to_bytes(_WORD.itemsize, "little")


def append(path: Path, header: bytes, keys: NDArray[np.uint8], texts: Ragged) -> None:
    """Add a block of texts with keys (n, KEY_BYTES), in a new file after `header`.

    Raises:
        OSError: if it cannot be written, e.g. for a full disk. What was begun is then a tail that nobody
            reads (taking it away could pull it from under a reader's map), so no more may be added.
    """
    new = not path.exists()
    with path.open("ab") as file:
        file.write((header if new else b"") + _block(keys, texts))


def blocks(words: Words, start: int) -> Iterator[Block]:
    """The whole blocks of a file from word `start` on; what is damaged between them is passed over."""
    mark = np.frombuffer(_MARK, _WORD)
    while start + 4 <= len(words):
        found = _block_at(words, start, mark)
        if found is None:
            later = np.flatnonzero((words[start + 1 : -1] == mark[0]) & (words[start + 2 :] == mark[1]))
            if not len(later):
                return
            start += 1 + int(later[0])
            continue
        yield found
        start = found.end


def read(words: Words, places: Places, longest: int) -> tuple[NDArray[np.bool_], NDArray[np.uint8], Ragged]:
    """Records (n,) at these places: which are sound (n,), the keys (n, KEY_BYTES), the texts of the sound.

    `longest` bounds the ids of a text, so that a damaged length costs nothing.
    """
    lengths = words[places + _LENGTH].astype(np.int64)
    sound = (lengths <= longest) & (places + HEAD + lengths <= len(words))
    lengths[~sound] = 0
    sound &= words[places + _CHECK] == _checks(words, places, lengths)
    keys = np.ascontiguousarray(words[places[:, None] + np.arange(4)]).view(np.uint8)
    places, lengths = places[sound], lengths[sound]
    ids = words[spans(places + HEAD, lengths)].view(np.int32)
    return sound, keys, Ragged(ids, lengths, words[places + _PROMPT].astype(np.int64))


def _block(keys: NDArray[np.uint8], texts: Ragged) -> bytes:
    ends = np.cumsum(texts.lengths + HEAD)
    starts = ends - texts.lengths - HEAD
    words = np.zeros(int(ends[-1]), _WORD)
    words[starts[:, None] + np.arange(4)] = np.ascontiguousarray(keys).view(_WORD)
    words[starts + _LENGTH], words[starts + _PROMPT] = texts.lengths, texts.prompt_len
    words[spans(starts + HEAD, texts.lengths)] = texts.ids.view(np.uint32)
    words[starts + _CHECK] = _checks(words, starts, texts.lengths)
    lead = np.array([len(keys), *texts.lengths.tolist()], _WORD)
    crc = np.array([zlib.crc32(lead.tobytes())], _WORD)
    return _MARK + lead[:1].tobytes() + crc.tobytes() + lead[1:].tobytes() + words.tobytes()


def _block_at(words: Words, start: int, mark: Words) -> Block | None:
    """The block that begins at a word; None where none does, or its end is missing."""
    if words[start] != mark[0] or words[start + 1] != mark[1]:
        return None
    count, first = int(words[start + 2]), start + 4
    if first + count > len(words):
        return None
    lead = np.concatenate([words[start + 2 : start + 3], words[first : first + count]])
    if zlib.crc32(lead.tobytes()) != int(words[start + 3]):
        return None
    sizes = lead[1:].astype(np.int64) + HEAD
    places = first + count + np.cumsum(sizes) - sizes
    end = first + count + int(sizes.sum())
    if end > len(words):
        return None
    keys = np.ascontiguousarray(words[places[:, None] + np.arange(4)]).view(np.uint8)
    return Block(keys, places, end)


def _checks(words: Words, places: Places, lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """What the checksums of the records (n,) must be.

    The upper half of the sum, modulo 2^64, of a record's words times the powers of an odd number: a linear
    hash, vectorised where CRC would be a call a record. Damage goes unseen once in 2^32.
    """
    if not len(places):
        return np.zeros(0, np.uint32)
    sizes = np.minimum(lengths + HEAD, len(words) - places)
    begins = np.cumsum(sizes) - sizes
    factors = np.cumprod(np.full(int(sizes.max()), 0x9E3779B97F4A7C15, np.uint64), dtype=np.uint64)
    factors[_CHECK : _CHECK + 1] = 0  # the check itself
    terms = words[spans(places, sizes)].astype(np.uint64) * factors[spans(np.zeros_like(sizes), sizes)]
    return (np.add.reduceat(terms, begins) >> np.uint64(32)).astype(np.uint32)


def spans(starts: Places, lengths: NDArray[np.int64]) -> Places:
    """The numbers starts[i] .. starts[i] + lengths[i] - 1 of all i, one behind the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(int(ends[-1]) if len(ends) else 0)
