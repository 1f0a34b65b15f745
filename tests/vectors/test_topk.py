import torch

from embedtrain.vectors.topk import largest, no_best, top


def slowly(values, places, count):
    """Numbers of the documents with the largest (value, place) of each row."""
    ranked = [sorted(((v, places[c], c) for c, v in enumerate(row)), reverse=True) for row in values.tolist()]
    return [{column for _, _, column in row[:count]} for row in ranked]


def tied(queries, documents, levels, seed=0):
    """Values (queries, documents) of so few levels that ties are the rule, and places of the documents."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, levels, (queries, documents), generator=generator).float()
    return values, torch.randperm(documents, generator=generator)


def test_equal_values_are_decided_by_the_order_however_many_there_are():
    for levels in (1, 2, 5, 1000):
        values, places = tied(7, 40, levels)
        for count in (1, 3, 39, 40, 50):
            columns = largest(values, torch.arange(40), places.__getitem__, count)
            assert [set(row) for row in columns.tolist()] == slowly(values, places.tolist(), count)


def test_blocks_in_any_sequence_merge_to_what_the_whole_gives():
    values, places = tied(5, 60, 4, seed=1)
    order = places.__getitem__
    for size, backwards in ((7, False), (7, True), (60, False), (1, False)):
        best = no_best(5)
        starts = list(range(0, 60, size))
        for start in starts[::-1] if backwards else starts:
            best = best.merged(top(values[:, start : start + size], start, order, 10), order, 10)
        assert [set(row) for row in best.numbers.tolist()] == slowly(values, places.tolist(), 10)
        assert torch.equal(best.values, values.gather(1, best.numbers))
