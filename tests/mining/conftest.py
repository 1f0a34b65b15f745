"""A teacher without a model, and small rows to mine."""

import hashlib
from functools import partial

import data_modules
import numpy as np
import pytest


class CountingTeacher:
    """Unit vectors drawn by the text; counts what it is asked for."""

    source = "drawn"

    def __init__(self, identity="ab" * 20, width=16):
        self.identity, self.width, self.asked = identity, width, []

    def read(self, texts, role, prompts=None):
        return texts, role, prompts

    def vectors(self, read):
        return self.embed(*read)

    def embed(self, texts, role, prompts=None):
        self.asked += list(texts)
        behind = [None] * len(texts) if prompts is None else prompts
        rows = [self._vector(f"{role} {prompt} {text}") for text, prompt in zip(texts, behind, strict=True)]
        return np.array(rows, dtype=np.float32)

    def _vector(self, text):
        seed = int.from_bytes(hashlib.sha256(f"{self.identity}{text}".encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).standard_normal(self.width)
        return vector / np.linalg.norm(vector)


@pytest.fixture
def teacher():
    return CountingTeacher()


@pytest.fixture
def make_teacher():
    return CountingTeacher


@pytest.fixture
def example():
    return partial(data_modules.example, where="rows.jsonl:1")
