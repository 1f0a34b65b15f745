"""Settings of InfoNCE: learned and scheduled temperatures, and what is refused."""

import math

import pytest
import torch
from fixed_pairing import fixed

from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.schedule import Linear
from embedtrain.objective.similarity.blocks import contrast
from embedtrain.types import InputError

ALL = ("query_docs", "query_queries", "doc_queries", "doc_docs")


@pytest.fixture
def value():
    """A loss and a step -> its value on four queries and six documents."""
    generator = torch.Generator().manual_seed(0)
    query, docs = (torch.randn(count, 5, generator=generator, dtype=torch.float64) for count in (4, 6))
    pairing = fixed(torch.arange(4), torch.ones(4, 6, dtype=torch.bool))
    return lambda loss, step=0: contrast(loss, query, docs, pairing._replace(step=step))


def test_learned_temperature_begins_where_it_is_told_and_follows_the_gradient(value):
    constant, learned = InfoNCE(0.1), InfoNCE(0.1, learn_temperature=True)
    found = value(learned)
    torch.testing.assert_close(found, value(constant), rtol=1e-6, atol=0)
    assert [name for name, _ in learned.named_parameters()] == ["log_inverse"]
    assert not list(constant.parameters())
    found.backward()
    assert learned.log_inverse.grad.abs() > 0


def test_learned_scale_is_held_to_100_without_losing_its_gradient(value):
    loss = InfoNCE(learn_temperature=True)
    with torch.no_grad():
        loss.log_inverse.fill_(math.log(1e6))
    assert loss.inverse_temperature(0).item() == pytest.approx(100, rel=1e-5)
    value(loss).backward()
    assert loss.log_inverse.grad.abs() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": Linear(0.1, 0.0, steps=10)}, r"temperature must be above 0 .* got 0\.0"),
        ({"hardness": "all", "hardness_strength": Linear(1.0, -1.0, steps=10)},
         r"hardness_strength must be 0 or more, got -1\.0"),
    ],
)  # fmt: skip
def test_a_schedule_may_not_leave_the_range(value, settings, message):
    loss = InfoNCE(**settings)
    assert value(loss).isfinite()
    with pytest.raises(InputError, match=message):
        value(loss, step=10)


def test_learned_temperature_must_leave_room_below_the_bound():
    with pytest.raises(InputError, match=r"temperature must be at least 0\.01 to be learned, got 0\.005"):
        InfoNCE(0.005, learn_temperature=True)
    assert InfoNCE(0.01, learn_temperature=True).inverse_temperature(0).item() == pytest.approx(100)
    with pytest.raises(InputError, match="temperature is a schedule and learned at once"):
        InfoNCE(Linear(0.1, 0.05, steps=10), learn_temperature=True)
