from pathlib import Path

import pytest
import torch
from processes import module_at

from embedtrain.evaluation.vectors.bank import check_agreement, share_of

SCRIPT = Path(__file__).with_name("bank_ranks.py")


@pytest.fixture(scope="module")
def script():
    return module_at(SCRIPT)


@pytest.fixture(scope="module")
def ranks(on_ranks, tmp_path_factory):
    """What each of two ranks found, by form of keeping."""
    return on_ranks(SCRIPT, "main", tmp_path_factory.mktemp("bank"))


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_shares_hold_every_text_once_and_are_balanced(ranks):
    lengths = [
        int(length) for length in torch.randint(1, 500, (203,), generator=torch.Generator().manual_seed(0))
    ]
    shares = [share_of(lengths, ranks, rank) for rank in range(ranks)]
    assert sorted(row for share in shares for row in share) == list(range(203))
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1
    sums = [sum(lengths[row] for row in share) for share in shares]
    assert max(sums) - min(sums) <= max(lengths)
    assert share_of([], ranks, 0) == []


def test_one_process_agrees_with_itself():
    check_agreement([b"any"])


@pytest.mark.parametrize(
    "form", ["memory", "written", "found", "disk", "found_on_disk", "damaged_meanwhile", "mended", "float16"]
)
def test_two_ranks_have_the_vectors_of_one_and_encode_each_text_once(ranks, script, form):
    expected = script.fake_encoder().encode(script.TEXTS, [3], "query").at(script.SUB)
    encoded = [texts for _, texts, _ in (rank[form] for rank in ranks)]
    tolerance = 1e-3 if form == "float16" else 0.0
    for rank in ranks:
        (first, every), _, told = rank[form]
        assert torch.allclose(first, expected[:1], rtol=0, atol=tolerance)
        assert torch.allclose(every, torch.cat([expected, expected[:9]]), rtol=0, atol=tolerance)
        assert not told or told[-1] == sum(map(len, encoded))
    if form in ("found", "found_on_disk"):
        assert encoded == [[], []]
    elif form in ("damaged_meanwhile", "mended"):
        assert sum(map(len, encoded)) == 1
    else:
        assert sorted(text for _, text in encoded[0] + encoded[1]) == sorted(script.TEXTS)
        assert {len(texts) for texts in encoded} <= {50, 51}


def test_ranks_that_ask_for_different_texts_are_told_so_on_both(ranks):
    for rank in ranks:
        assert "ranks ask for different texts: rank 0: 101 texts" in rank["disagreement"]
        assert "rank 1: 100 texts" in rank["disagreement"]


def test_two_ranks_search_a_passing_corpus_as_one_and_share_its_chunks(ranks, script, monkeypatch):
    monkeypatch.setattr("embedtrain.evaluation.vectors.streaming._MOST_TEXTS", 16)
    expected, _ = script.streamed()
    for rank in ranks:
        assert rank["streamed"][0] == expected
    encoded = [text for rank in ranks for _, text in rank["streamed"][1]]
    assert sorted(encoded) == sorted(2 * script.TEXTS)  # once for the ranges of int8
    assert min(len(rank["streamed"][1]) for rank in ranks) > 0
