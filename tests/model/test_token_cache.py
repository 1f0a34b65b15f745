"""Tokens read from disk are the tokens that the tokenizer makes."""

import logging
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, ByT5Tokenizer

from embedtrain.model import token_cache
from embedtrain.model.inputs.token_file import HEADER_WORDS
from embedtrain.model.inputs.tokenizer import TextTokenizer
from embedtrain.model.token_cache import CachedTokenize, cached_tokenize, tokenizer_identity
from embedtrain.types import InputError

LONG = "the dog runs in the house of the man " * 9
TEXTS = ["a cat sleeps", "", LONG, "big river", "a cat sleeps", "naïve 北京"]
PROMPTS = [None, "", "find it: ", None, "find it: ", "word "]
SETTINGS = [
    {},
    {"prompts": {"query": "query: ", "document": "passage: "}},
    {"prompts": {"query": "query: "}, "pool_prompt": False, "padding_side": "left"},
    {"append_eos": True, "padding_side": "left"},
]


@pytest.fixture(scope="module")
def plain(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)

    def make(max_length=24, **settings):
        return TextTokenizer(tokenizer, max_length, **settings)

    return make


def same(one, two):
    return all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, two, strict=True)
    )


def files(cache):
    return sorted(cache.folder.glob("*.tokens"))


def count_reads(tokenize, monkeypatch):
    """The texts that the tokenizer itself has read from now on."""
    seen, read = [], type(tokenize).read

    def counting(self, texts, *args):
        seen.extend(texts)
        return read(self, texts, *args)

    monkeypatch.setattr(type(tokenize), "read", counting)
    return seen


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("max_length", [12, 24])
def test_tokens_are_those_without_the_cache(plain, tmp_path, settings, max_length, monkeypatch):
    tokenize = plain(max_length, **settings)
    calls = [
        (TEXTS, "query", None),
        (TEXTS[::-1], "document", None),
        (TEXTS, "query", PROMPTS),
        ([], "query", None),
    ]
    expected = [tokenize(*call) for call in calls]
    cold, warm = CachedTokenize(tokenize, tmp_path), CachedTokenize(tokenize, tmp_path)
    assert all(same(cold(*call), tokens) for call, tokens in zip(calls, expected, strict=True))
    part = CachedTokenize(tokenize, tmp_path / "part")
    part(TEXTS[1:4], "query")
    assert same(part(*calls[0]), expected[0])  # some found, some made
    seen = count_reads(tokenize, monkeypatch)
    assert all(same(warm(*call), tokens) for call, tokens in zip(calls, expected, strict=True))
    assert seen == []


def test_a_tokenizer_without_rust_is_cached_too(tmp_path, monkeypatch):
    tokenize = TextTokenizer(ByT5Tokenizer(), 20)
    expected = tokenize(TEXTS, "query")
    assert same(CachedTokenize(tokenize, tmp_path)(TEXTS, "query"), expected)
    seen = count_reads(tokenize, monkeypatch)
    assert same(CachedTokenize(tokenize, tmp_path)(TEXTS, "query"), expected)
    assert seen == []


def test_identity_names_all_that_decides_tokens(plain, tiny_bert):
    made = [
        plain(),
        plain(23),
        plain(pool_prompt=False),
        plain(append_eos=True),
        TextTokenizer(AutoTokenizer.from_pretrained(tiny_bert), 24),
        TextTokenizer(ByT5Tokenizer(), 24),
        TextTokenizer(ByT5Tokenizer(extra_ids=0), 24),
    ]
    identities = [tokenizer_identity(tokenize) for tokenize in made]
    assert len(set(identities)) == len(made)
    made[0](TEXTS, "query")  # what a call leaves in the tokenizer is no part of it
    assert [tokenizer_identity(tokenize) for tokenize in made] == identities
    assert tokenizer_identity(plain(prompts={"query": "q: "}, padding_side="left")) == identities[0]


def test_a_prompt_cannot_be_taken_for_text(plain, tmp_path):
    cache = CachedTokenize(plain(pool_prompt=False), tmp_path)
    calls = [(["a cat"], "query", ["the "]), (["the a cat"], "query", [""]), (["cat"], "query", ["the a "])]
    for _ in range(2):
        assert [cache(*call).prompt_len.item() for call in calls] == [2, 0, 3]


def test_errors_are_those_of_the_tokenizer_every_time(plain, tmp_path):
    cache = CachedTokenize(plain(6, pool_prompt=False), tmp_path)
    for _ in range(2):
        with pytest.raises(InputError, match="leaves no room"):
            cache(["a cat"], "query", ["the big old house of the man "])


def work(cache, texts, queue):
    tokens = cache(texts, "query")
    queue.put((tokens.ids.tolist(), len(files(cache))))


def test_processes_write_files_of_their_own_and_read_all(plain, tmp_path, monkeypatch):
    tokenize = plain()
    cache = CachedTokenize(tokenize, tmp_path)
    cache(TEXTS[:2], "query")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    own = [[*TEXTS[start:], "word " * start] for start in (1, 2)]
    workers = [context.Process(target=work, args=(cache, texts, queue)) for texts in own]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert len(files(cache)) == 3
    by_size = sorted((ids for ids, _ in found), key=len, reverse=True)
    assert by_size == [tokenize(texts, "query").ids.tolist() for texts in own]
    seen = count_reads(tokenize, monkeypatch)
    copy = pickle.loads(pickle.dumps(cache))
    assert same(cache(TEXTS, "query"), copy(TEXTS, "query"))
    assert seen == []


def test_a_truncated_tail_is_not_read(plain, tmp_path, caplog):
    tokenize = plain()
    cache = CachedTokenize(tokenize, tmp_path)
    cache(TEXTS[:2], "query")
    cache(TEXTS[2:], "query")
    (path,) = files(cache)
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        again = CachedTokenize(tokenize, tmp_path)
        assert same(again(TEXTS, "query"), tokenize(TEXTS, "query"))
        for other in files(cache):
            if other != path:
                other.unlink()


def test_damage_anywhere_changes_no_token_and_is_warned_of(plain, tmp_path, caplog):
    tokenize = plain()
    expected = tokenize(TEXTS, "query")
    cache = CachedTokenize(tokenize, tmp_path)
    cache(TEXTS[:2], "query")
    cache(TEXTS[2:], "query")
    (path,) = files(cache)
    whole = path.read_bytes()
    silent = []
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        path.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert same(CachedTokenize(tokenize, tmp_path)(TEXTS, "query"), expected), place
        if "damaged" not in caplog.text:
            silent.append(place)
        for other in files(cache):
            if other != path:
                other.unlink()
    assert len(whole) > 4 * HEADER_WORDS
    # A changed key is a text that nobody asks for; a damaged last block looks like one that is being written.
    assert len(silent) < len(whole) / 3 / 2


def test_a_full_disk_stops_the_writing_alone(plain, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    tokenize = plain()
    cache = CachedTokenize(tokenize, tmp_path)
    monkeypatch.setattr(token_cache, "append", full)
    for _ in range(3):
        assert same(cache(TEXTS, "query"), tokenize(TEXTS, "query"))
    assert caplog.text.count("No space left on device") == 1


def test_a_folder_that_cannot_be_is_an_input_error(plain, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"data\.token_cache"):
        CachedTokenize(plain(), tmp_path / "file")


def test_other_tokenizers_are_left_as_they_are(tmp_path):
    def other(texts, role, prompts=None):
        raise AssertionError

    assert cached_tokenize(other, tmp_path) is other


def test_ragged_padding_equals_the_obvious_one(plain):
    for side in ("left", "right"):
        tokenize = plain(padding_side=side)
        read = tokenize.read(TEXTS, "query")
        tokens = tokenize.pad(read)
        for row, mask, ids in zip(read, tokens.mask, tokens.ids, strict=True):
            assert ids[mask].tolist() == row.ids
            assert np.diff(np.flatnonzero(mask)).tolist() == [1] * (len(row.ids) - 1)
            assert bool(mask[-1 if side == "left" else 0])
            assert set(ids[~mask].tolist()) <= {tokenize.tokenizer.pad_token_id}
