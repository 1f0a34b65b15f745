import pytest
import torch

from embedtrain.training.steps.contrastive.queue import Documents, Queue, join
from embedtrain.types import InputError

CPU = torch.device("cpu")


def documents(*ids, task=0, hard=False, guide=False):
    """Documents whose values, guide vectors and ids are one number each."""
    numbers = torch.tensor(ids)
    values = numbers[None, :, None].expand(2, -1, 3).float()
    tasks = torch.full_like(numbers, task)
    hards = torch.full(numbers.shape, hard)
    return Documents(values, numbers, tasks, hards, numbers[:, None].float() if guide else None)


def test_the_oldest_make_room():
    queue = Queue(5)
    assert queue.documents(CPU) is None
    assert len(queue) == 0
    for pushed, expected in (
        (documents(1, 2), [1, 2]),
        (documents(3, 4), [1, 2, 3, 4]),
        (documents(5, 6, 7), [3, 4, 5, 6, 7]),
        (documents(*range(10, 20)), [15, 16, 17, 18, 19]),
    ):
        queue.push(pushed)
        held = queue.documents(CPU)
        assert held.content_ids.tolist() == expected
        assert torch.equal(held.values, documents(*expected).values)
        assert len(queue) == len(expected)


def test_a_push_writes_its_own_rows_alone():
    """What is held is a view of one buffer; it equals the concatenation of all that came, to the bit."""
    draw, queue, size = torch.Generator().manual_seed(0), Queue(20), 20
    came, places = torch.empty(2, 0, 3), set()
    for number in range(60):
        count = int(torch.randint(1, 9, (), generator=draw))
        new = documents(*range(100 * number, 100 * number + count), guide=True)
        new = new._replace(values=torch.randn(2, count, 3, generator=draw))
        queue.push(new)
        held = queue.documents(CPU)
        came = torch.cat([came, new.values], dim=1)[:, -size:]
        assert torch.equal(held.values, came)
        assert torch.equal(held.guide[:, 0].long(), held.content_ids)
        places.add(held.values.untyped_storage().data_ptr())
    assert len(places) == 1
    saved = queue.state_dict()["documents"][0]
    assert saved.untyped_storage().nbytes() == 2 * size * 3 * 4, "a checkpoint holds what is held and no more"


def test_one_of_each_text_and_task_enters():
    queue = Queue(10)
    queue.push(join(documents(4, 2, 4), documents(2, 4, task=1), documents(2)))
    held = queue.documents(CPU)
    assert list(zip(held.content_ids.tolist(), held.task.tolist(), strict=True)) == [
        (4, 0),
        (2, 1),
        (4, 1),
        (2, 0),
    ]


def test_a_document_that_was_a_positive_once_is_not_hard():
    queue = Queue(10)
    queue.push(join(documents(1, 2, hard=True), documents(2, 3), documents(3, 4, 5, hard=True)))
    held = queue.documents(CPU)
    assert dict(zip(held.content_ids.tolist(), held.hard.tolist(), strict=True)) == {
        1: True,
        2: False,
        3: False,
        4: True,
        5: True,
    }


def test_guide_vectors_travel_along():
    queue = Queue(3)
    queue.push(documents(1, 2, guide=True))
    queue.push(documents(3, 4, guide=True))
    assert queue.documents(CPU).guide.tolist() == [[2.0], [3.0], [4.0]]


def test_what_is_held_has_no_gradient_and_shares_no_memory():
    queue, new = Queue(3), documents(1, 2)
    values = new.values.clone().requires_grad_()
    queue.push(new._replace(values=values))
    assert not queue.documents(CPU).values.requires_grad
    with torch.no_grad():
        values.zero_()
    assert queue.documents(CPU).values[0, 0, 0] == 1


def test_a_saved_queue_continues_as_the_one_it_was_saved_from():
    whole, first = Queue(4), Queue(4)
    for queue in (whole, first):
        queue.push(documents(1, 2, 3, guide=True))
    second = Queue(4)
    second.load_state_dict(first.state_dict())
    for queue in (whole, second):
        queue.push(documents(4, 5, guide=True))
    for expected, found in zip(whole.documents(CPU), second.documents(CPU), strict=True):
        assert torch.equal(found, expected)
    empty = Queue(4)
    empty.load_state_dict(Queue(4).state_dict())
    assert empty.documents(CPU) is None


@pytest.mark.parametrize("size", [0, -3, 2.5, True])
def test_a_queue_has_room_for_a_document(size):
    with pytest.raises(InputError, match="size must be a whole number of documents of at least 1"):
        Queue(size)


def test_other_layers_do_not_fit_in():
    queue = Queue(3)
    queue.push(documents(1))
    with pytest.raises(ValueError, match="the queue holds 2 layers x 3, got 1 x 3"):
        queue.push(documents(2)._replace(values=torch.ones(1, 1, 3)))
