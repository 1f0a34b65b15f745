import hashlib

import pytest
import torch
from small_runs import write_rows

from embedtrain.types import Embeddings


class FakeEncoder:
    """Bags of hashed words: vectors are a function of text, layer and seed. Counts what it encodes."""

    def __init__(self, num_layers=3, width=16, seed=0, prompts=None):
        self.num_layers, self.width, self.seed, self.prompts = num_layers, width, seed, prompts or {}
        self.calls, self.texts = 0, []

    def encode(self, texts, layers, role="document", progress=None, *, prompt=None):
        self.calls += 1
        before = self.prompts.get(role, "") if prompt is None else prompt
        self.texts += [(role, before + text) for text in texts]
        values = torch.stack(
            [torch.stack([self._vector(before + text, layer) for text in texts]) for layer in layers]
        )
        if progress is not None:
            progress(len(texts), len(texts))
        return Embeddings(values, tuple(layers))

    def _vector(self, text, layer):
        total = torch.full((self.width,), 0.01)
        for word in text.lower().split():
            seed = int(hashlib.sha256(f"{word} {layer} {self.seed}".encode()).hexdigest()[:12], 16)
            total += torch.randn(self.width, generator=torch.Generator().manual_seed(seed))
        return total


@pytest.fixture
def make_encoder():
    return FakeEncoder


@pytest.fixture
def write():
    return write_rows


WORDS = "red green blue cat dog bird runs sleeps eats house river stone small large old".split()


def sentence(number):
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 7))


def clustering_task(rows, **settings):
    """An mteb clustering of (text, label) rows; `settings` are those of its class."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskClustering
    from mteb.abstasks.task_metadata import TaskMetadata

    class Groups(AbsTaskClustering):
        max_fraction_of_documents_to_embed = None
        metadata = TaskMetadata(
            name="Groups",
            description="-",
            dataset={"path": "none", "revision": "1"},
            type="Clustering",
            category="t2c",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="v_measure",
        )

        def load_data(self, num_proc=None, **_):
            table = {"sentences": [text for text, _ in rows], "labels": [label for _, label in rows]}
            self.dataset, self.data_loaded = DatasetDict(test=Dataset.from_dict(table)), True

    for name, value in settings.items():
        setattr(Groups, name, value)
    return Groups()


@pytest.fixture
def make_clustering():
    return clustering_task


@pytest.fixture
def data_root(tmp_path):
    """One small data set of each kind, in the local layout."""
    root = tmp_path / "data"
    pairs = [(sentence(n), sentence(n + n % 4), 5.0 - n % 4) for n in range(30)]
    write_rows(root / "sts/mine/train.jsonl", [{"sentence1": "a", "sentence2": "b", "score": 1}])
    write_rows(
        root / "sts/mine/test.jsonl", [{"sentence1": a, "sentence2": b, "score": s} for a, b, s in pairs]
    )
    write_rows(
        root / "pairs/twins/dev.jsonl",
        [{"sentence1": a, "sentence2": b, "label": int(s > 4)} for a, b, s in pairs],
    )
    labelled = [{"text": f"{word} {sentence(n)}", "label": word} for n in range(20) for word in WORDS[:3]]
    write_rows(root / "classification/colours/train.jsonl", labelled)
    write_rows(
        root / "retrieval/find/corpus.jsonl",
        [{"id": f"d{n}", "title": f"Title {n % 5}", "text": sentence(n)} for n in range(40)],
    )
    write_rows(
        root / "retrieval/find/queries.jsonl", [{"id": f"q{n}", "text": sentence(n)} for n in range(10)]
    )
    write_rows(
        root / "retrieval/find/qrels.jsonl",
        [
            {"query_id": f"q{n}", "corpus_id": f"d{n + k}", "score": 2 - k}
            for n in range(10)
            for k in range(2)
        ],
    )
    return root
