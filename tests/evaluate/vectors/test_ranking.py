from functools import partial

import torch

from embedtrain.evaluate.vectors.ranking import Best, largest, no_best, order_of


def slowly(values, ids, count):
    """Ids of the largest (value, id) of each row."""
    return [
        {
            ids[column]
            for _, _, column in sorted(((v, ids[c], c) for c, v in enumerate(row)), reverse=True)[:count]
        }
        for row in values.tolist()
    ]


def tied(queries, documents, levels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, levels, (queries, documents), generator=generator).float()
    ids = [f"d{number}" for number in torch.randperm(documents, generator=generator).tolist()]
    return values, ids


def test_equal_values_are_decided_by_the_larger_id_however_many_there_are():
    for levels in (1, 2, 5, 1000):
        values, ids = tied(7, 40, levels)
        for count in (1, 3, 39, 40, 50):
            columns = largest(values, partial(order_of, ids), count)
            found = [{ids[column] for column in row} for row in columns.tolist()]
            assert found == slowly(values, ids, count)


def test_parts_in_any_sequence_merge_to_what_the_whole_gives():
    values, ids = tied(5, 60, 4, seed=1)
    order = order_of(ids)
    for size, backwards in ((7, False), (7, True), (60, False), (1, False)):
        best = no_best(5)
        starts = list(range(0, 60, size))
        for start in starts[::-1] if backwards else starts:
            part = values[:, start : start + size]
            columns = largest(part, lambda part=order[start : start + size]: part, 10)
            keys = part.gather(1, columns)
            best = best.merged(Best(keys, columns + start, keys), lambda: order, 10)
        assert [{ids[column] for column in row} for row in best.columns.tolist()] == slowly(values, ids, 10)
        assert torch.equal(best.values, values.gather(1, best.columns))
