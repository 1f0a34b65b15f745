from itertools import count

import pytest

from embedtrain.evaluation.speed import BATCH, ENOUGH, FEWEST, MOST, SLOW, WARM_UP, speeds, timed
from embedtrain.model.folder.export import load_encoder


@pytest.mark.parametrize(
    ("seconds", "warm_up", "counted"),
    [(0.01, WARM_UP, MOST), (ENOUGH / 4, WARM_UP, 4), (ENOUGH, WARM_UP, FEWEST), (SLOW + 1, 1, 1)],
)
def test_calls_end_when_they_are_enough(seconds, warm_up, counted):
    calls = []
    ticks = count()
    found = timed(lambda: calls.append(1), lambda: next(ticks) % 2 * seconds)
    assert found == (warm_up, [seconds] * counted)
    assert len(calls) == warm_up + counted


def test_each_layer_has_a_query_and_a_batch(tiny_bert):
    encoder = load_encoder(tiny_bert)
    encoder.encode = encoded = recording(encoder.encode)
    lines = speeds(encoder, [1, 2], "mine")
    assert [(line.layer, line.texts) for line in lines] == [(1, 1), (2, 1), (1, BATCH), (2, BATCH)]
    assert {(line.run, line.device) for line in lines} == {("mine", "cpu")}
    assert all(0 < line.low <= line.ms <= line.high for line in lines)
    assert all(line.tokens > 10 for line in lines)
    assert sum(line.warm_up + line.repetitions for line in lines) == len(encoded.calls)
    assert {layers for layers, _ in encoded.calls} == {(1,), (2,)}


def recording(encode):
    def encoded(texts, layers, role):
        encoded.calls.append((tuple(layers), len(texts)))
        return encode(texts, layers, role)

    encoded.calls = []
    return encoded
