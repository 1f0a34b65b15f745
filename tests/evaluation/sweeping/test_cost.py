import pytest
import torch
from tasks import local_tasks, official_tasks, swept

from embedtrain.evaluation.catalogue.texts import shipped_texts, texts_of
from embedtrain.evaluation.sweeping.cost import _cost, _Counted, flops_of, route_of
from embedtrain.evaluation.vectors.storage import GIB, Keeping
from embedtrain.types import Cell


def test_the_texts_of_a_task_are_those_that_a_sweep_encodes(make_encoder, data_root, tmp_path):
    for name in ("mine", "find"):
        (task,) = local_tasks(data_root, [name])
        encoder = make_encoder()
        swept(encoder, [task], [Cell(1, 4)], tmp_path / name, workers=1)
        (task,) = local_tasks(data_root, [name])
        assert sorted(texts_of(task)) == sorted(text for _, text in encoder.texts)
        assert not task.data_loaded


def test_statistics_stand_in_for_data_that_are_not_here():
    (task,) = official_tasks(["SciFact"])
    assert shipped_texts(task.metadata.descriptive_stats["test"]) == (5483, 7798555)


class FakeBlocks:
    hidden_size = 8
    blocks = (torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))


class FakeModel:
    backbone, width = FakeBlocks(), 16


def test_operations_are_those_of_the_blocks_that_run_and_of_attention():
    assert flops_of(FakeModel(), 1, 10, 0) == 2 * 72 * 10
    assert flops_of(FakeModel(), 2, 10, 30) == 2 * 144 * 10 + 2 * 4 * 8 * 30


@pytest.mark.parametrize(
    ("keeping", "kind", "route"),
    [
        (Keeping(), "STS", "memory"),
        (Keeping(memory_gb=2.0), "Retrieval", "memory"),
        (Keeping("x", 1.0, 0.5), "STS", "store"),
        (Keeping("x", 0.6, 0.5), "Retrieval", "streamed"),
        (Keeping(None, 9.0, 0.5), "Retrieval", "streamed"),
        (Keeping(None, 9.0, 0.5), "STS", "memory, beyond memory_gb"),
    ],
)
def test_the_route_is_told_by_the_budgets(keeping, kind, route):
    assert route_of(GIB, kind, keeping) == route


def test_a_cost_counts_layers_dtype_and_the_second_pass_of_int8():
    item = _Counted("t", "Retrieval", 100, 1_000, 20_000.0, exact=True, sample=[])
    cells = [Cell(1, 4), Cell(2, 16), Cell(2, 4)]
    plain = _cost(FakeModel(), item, cells, Keeping(), 50.0, 2)
    assert (plain.texts, plain.tokens, plain.vector_bytes) == (100, 1_000, 100 * 2 * 16 * 4)
    assert plain.seconds == 10.0
    half = _cost(FakeModel(), item, cells, Keeping(dtype="float16"), 50.0, 1)
    assert half.vector_bytes == plain.vector_bytes / 2
    twice = _cost(FakeModel(), item, [*cells, Cell(2, 4, "int8")], Keeping(memory_gb=0.0), 50.0, 2)
    assert (twice.seconds, twice.flops) == (20.0, 2 * plain.flops)
