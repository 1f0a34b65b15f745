"""Texts that were tokenised once are read from disk: a `Tokenize` around a `TextTokenizer`.

A cache is `<folder>/<first 16 digits of the identity>/`, with one append-only file a process that wrote
(`token_file.py`), so that worker processes and ranks never write into each other's and read all of them.

Letters: n texts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from embedtrain.model.folder.contract import digits, tokenizer_hash
from embedtrain.model.inputs.token_file import (
    HEADER_WORDS,
    KEY_BYTES,
    Block,
    Ragged,
    Words,
    append,
    blocks,
    make_header,
    read,
    spans,
)
from embedtrain.model.inputs.tokenizer import TextTokenizer, ragged
from embedtrain.types import InputError, Role, Tokenize, Tokens
from embedtrain.vectors.index import VectorIndex

LOG = logging.getLogger(__name__)
_FILE_BITS = 40  # a place is the number of a file, shifted so far, and a word in it


def cached_tokenize(tokenize: Tokenize, folder: str | Path) -> Tokenize:
    """What tokenises like `tokenize` and keeps what it made in `folder`.

    The tokenizer of another library (a guide's) is given back as it is: nothing names all that decides it.

    Raises:
        InputError: if the folder cannot be made.
    """
    return CachedTokenize(tokenize, folder) if isinstance(tokenize, TextTokenizer) else tokenize


class CachedTokenize:
    """A tokenizer with a cache on disk; memory grows by 16 bytes a text. Tokens are those without it.

    It may be pickled and forked: every process writes a file of its own. Where nothing can be written, e.g.
    on a full disk, it goes on without writing, with one warning.

    Args:
        tokenize: of what is not there yet.
        folder: where caches are; one may hold those of many tokenizers.

    Raises:
        InputError: if the folder cannot be made.
    """

    def __init__(self, tokenize: TextTokenizer, folder: str | Path) -> None:
        self.tokenize = tokenize
        identity = tokenizer_identity(tokenize)
        self.folder = Path(folder).expanduser() / identity[:16]
        self._header = make_header(identity)
        self._longest = max(1, tokenize.max_length)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make data.token_cache {self.folder}: {error.strerror}. Give another folder, or none"
            ) from error
        self._forget_all()

    def __call__(
        self, texts: Sequence[str], role: Role, prompts: Sequence[str | None] | None = None
    ) -> Tokens:
        """(M, T) tokens, T the longest of these texts. Raises InputError as `TextTokenizer.read`."""
        if not texts:
            return self.tokenize(texts, role, prompts)
        if self._process != os.getpid():
            self._forget_all()
        chosen = self.tokenize.chosen(len(texts), role, prompts)
        keys = _keys(chosen, texts)
        there, found = self._find(keys)
        missing = np.flatnonzero(~there).tolist()
        if not missing:
            return self.tokenize.pad_ragged(found)
        made = ragged(
            self.tokenize.read([texts[row] for row in missing], role, [chosen[row] for row in missing])
        )
        self._add(keys[missing], made)
        return self.tokenize.pad_ragged(_merged(there, found, made))

    def __getstate__(self) -> dict[str, Any]:
        kept = ("tokenize", "folder", "_header", "_longest")
        return {name: value for name, value in vars(self).items() if name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget_all()

    def _forget_all(self) -> None:
        """Begin as a process that has read and written nothing."""
        self._process = os.getpid()
        self._paths: list[Path] = []
        self._words: list[Words] = []
        self._ends: list[int] = []  # first word of each file that is not indexed
        self._left_out: set[Path] = set()
        self._index = VectorIndex()
        self._own: Path | None = None
        self._writes = True

    def _find(self, keys: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], Ragged]:
        """Which of the keys (n, KEY_BYTES) are there (n,), and the texts of these in their order."""
        places = self._index.find(keys)
        if (places < 0).any() and self._refresh():
            places = self._index.find(keys)
        there = places >= 0
        parts: list[tuple[NDArray[np.int64], Ragged]] = []
        for number in np.unique(places[there] >> _FILE_BITS).tolist():
            rows = np.flatnonzero(there & (places >> _FILE_BITS == number))
            own = places[rows] & ((1 << _FILE_BITS) - 1)
            sound, found, texts = read(self._words[number], own, self._longest)
            if not sound.all():
                self._index.remove(places[rows[~sound]])
                LOG.warning(
                    "%s is damaged (%d texts): they are tokenised again", self._paths[number], (~sound).sum()
                )
            same = (found == keys[rows]).all(axis=1)  # the index knows half of a key
            there[rows[~sound | ~same]] = False
            parts.append((rows[sound], texts))
        return there, _in_order(there, parts)

    def _refresh(self) -> bool:
        """Take in what this and other processes have written since; whether there was anything."""
        new = False
        for path in sorted(self.folder.glob("*.tokens")):
            if path in self._left_out:
                continue
            size = path.stat().st_size // 4
            number = self._paths.index(path) if path in self._paths else None
            if size <= HEADER_WORDS or (number is not None and size <= len(self._words[number])):
                continue
            words: Words = np.memmap(path, np.dtype("<u4"), mode="r", shape=(size,))
            if number is None:
                if not self._ours(path, words):
                    continue
                number = len(self._paths)
                self._paths.append(path)
                self._words.append(words)
                self._ends.append(HEADER_WORDS)
            self._words[number] = words
            for block in blocks(words, self._ends[number]):
                self._take_in(number, block)
                new = True
        return new

    def _take_in(self, number: int, block: Block) -> None:
        passed = int(block.places[0]) - len(block.places) - 4 - self._ends[number]
        if passed:
            LOG.warning(
                "%s is damaged (%d bytes): its texts are tokenised again", self._paths[number], 4 * passed
            )
        self._index.add(block.keys, block.places | (number << _FILE_BITS))
        self._ends[number] = block.end

    def _ours(self, path: Path, words: Words) -> bool:
        if words[:HEADER_WORDS].tobytes() == self._header:
            return True
        LOG.warning("%s starts damaged and is not read: delete it; its texts are tokenised again", path)
        self._left_out.add(path)
        return False

    def _add(self, keys: NDArray[np.uint8], texts: Ragged) -> None:
        """Append new texts to this process's file, each once."""
        if not self._writes:
            return
        path = self._own or self.folder / f"{uuid.uuid4().hex}.tokens"
        try:
            append(path, self._header, keys, texts)
            self._own = path
        except OSError as error:
            self._writes = False
            LOG.warning(
                "cannot write tokens to %s: %s. Texts that are not there yet are tokenised each time; make "
                "room, or give another data.token_cache",
                path,
                error.strerror,
            )


def tokenizer_identity(tokenize: TextTokenizer) -> str:
    """40 hexadecimal digits that name whatever decides the tokens of a text behind its prompt."""
    tokenizer = tokenize.tokenizer
    deciding = (
        _description(tokenizer),
        type(tokenizer).__name__,
        tokenizer.truncation_side,
        tokenizer.pad_token_id,
        tokenize.max_length,
        tokenize.pool_prompt,
        version("tokenizers"),
        version("transformers"),
    )
    return digits(repr(deciding))


def _description(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that a fast tokenizer is; of another its settings, vocabulary, behaviour and files."""
    if tokenizer.is_fast:
        whole = json.loads(tokenizer.backend_tokenizer.to_str())
        return json.dumps(whole | {"truncation": None, "padding": None})  # left over from its last call
    files = (Path(str(getattr(tokenizer, name, ""))) for name in sorted(tokenizer.vocab_files_names))
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()]
    plain = (str, int, float, bool)
    settings = sorted(
        (name, value)
        for name, value in tokenizer.init_kwargs.items()
        if isinstance(value, plain) and name not in (*tokenizer.vocab_files_names, "name_or_path")
    )
    return repr((contents, settings, sorted(tokenizer.get_vocab().items()), tokenizer_hash(tokenizer)))


def _keys(prompts: Sequence[str], texts: Sequence[str]) -> NDArray[np.uint8]:
    """(n, KEY_BYTES) of texts behind their prompts, which is all that tokens know of a role."""
    heads = {
        prompt: hashlib.blake2b(_bytes(f"{len(prompt)} {prompt}"), digest_size=KEY_BYTES)
        for prompt in set(prompts)
    }
    digests = []
    for prompt, text in zip(prompts, texts, strict=True):
        hashed = heads[prompt].copy()
        hashed.update(_bytes(text))
        digests.append(hashed.digest())
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, KEY_BYTES)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _merged(there: NDArray[np.bool_], found: Ragged, made: Ragged) -> Ragged:
    """The texts found and those made, in the order of `there` (n,)."""
    return _ordered([(np.flatnonzero(there), found), (np.flatnonzero(~there), made)])


def _in_order(there: NDArray[np.bool_], parts: list[tuple[NDArray[np.int64], Ragged]]) -> Ragged:
    """What files gave, in the order of the texts; without the rows that are not there after all."""
    kept = []
    for rows, texts in parts:
        stays = there[rows]
        kept.append((rows[stays], texts if stays.all() else _some(texts, np.flatnonzero(stays))))
    return _ordered(kept)


def _ordered(parts: list[tuple[NDArray[np.int64], Ragged]]) -> Ragged:
    """Parts with the row of each of their texts, as one in the order of these rows."""
    if not parts:
        return Ragged(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
    texts = Ragged(*(np.concatenate(field) for field in zip(*(texts for _, texts in parts), strict=True)))
    return texts if (order[1:] > order[:-1]).all() else _some(texts, order)


def _some(texts: Ragged, rows: NDArray[np.int64]) -> Ragged:
    ends = np.cumsum(texts.lengths)
    lengths = texts.lengths[rows]
    starts = (ends - texts.lengths)[rows]
    return Ragged(texts.ids[spans(starts, lengths)], lengths, texts.prompt_len[rows])
