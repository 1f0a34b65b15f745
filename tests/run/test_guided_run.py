"""Whole runs beside a guide: the model that training starts from, frozen, with and without its cache."""

import pytest
from small_runs import command, read_rows

from embedtrain.model.guides.guide import EncoderVectors


@pytest.fixture
def run(small_run, tiny_bert, tmp_path):
    """Name and more words -> lines of training metrics, without those that a clock decides."""

    def started(name, *words, loss="gist", guide=("guide=model", f"guide.path={tiny_bert}")):
        guided = [f"loss={loss}", *guide, "trainer.max_epochs=2"]
        command("train", *small_run, *guided, f"name={name}", f"output_root={tmp_path}", *words)
        lines = read_rows(tmp_path / name / "metrics.jsonl")
        return [{key: value for key, value in line.items() if "second" not in key} for line in lines]

    return started


def encoded_texts(monkeypatch):
    """Texts that guides encode from now on, counted."""
    counts, plain = [], EncoderVectors.vectors

    def counting(self, tokens):
        counts.append(len(tokens.values))
        return plain(self, tokens)

    monkeypatch.setattr(EncoderVectors, "vectors", counting)
    return counts


def test_a_warm_cache_changes_nothing_but_the_time(run, tmp_path, monkeypatch):
    counts, cached = encoded_texts(monkeypatch), f"guide.cache={tmp_path}/cache"
    cold = run("cold", "negatives=gist", cached)
    assert len(cold) == 16
    assert all(line[key] > 0 for line in cold[:1] for key in line if "removed_margin_pos" in key)
    assert sum(counts) == 128  # 64 queries and 64 positives, in the first of two epochs
    counts.clear()
    assert run("warm", "negatives=gist", cached) == cold
    assert counts == []


def test_a_teacher_of_vectors_is_asked_once_for_each_text(run, tmp_path, monkeypatch):
    """The teacher has dims 32, and the cuts learn the prefixes of its vectors."""
    words = ["distill=embedding", "distill.weight=2", f"guide.cache={tmp_path}/cache"]
    counts = encoded_texts(monkeypatch)
    cold = run("cold", *words, loss="infonce")
    assert sum(counts) == 128
    counts.clear()
    assert run("warm", *words, loss="infonce") == cold
    assert counts == []
    assert run("plain", loss="infonce", guide=())[0]["train/loss"] != cold[0]["train/loss"]


def test_a_run_without_its_rules_is_another(run):
    guided = run("guided", "negatives=gist_margin")
    plain = run("plain", "negatives=all", "loss.guided=false", guide=())
    assert guided[0]["train/loss"] < plain[0]["train/loss"]
    assert not any("removed" in key for key in plain[0])
