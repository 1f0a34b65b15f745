import pytest
import torch
import torch.nn.functional as F

from embedtrain.objective.distill.scores import ScoreKL
from embedtrain.objective.schedule import Linear
from embedtrain.types import RowFacts


@pytest.fixture
def batch():
    """Student and teacher similarities (4, 9), what is allowed, and the facts of the rows."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 9, generator=generator, dtype=torch.float64)
    allowed = torch.rand(4, 9, generator=generator) < 0.5
    target = torch.tensor([3, 0, 8, 5])
    allowed[range(4), target] = True
    allowed[2] = F.one_hot(target[2], 9).bool()  # nothing but its positive
    return student.requires_grad_(), teacher.requires_grad_(), allowed, RowFacts(torch.arange(4), target, 0)


def slow(student, teacher, allowed, weight, temperature):
    """The formula of the docstring, one query at a time."""
    rows = []
    for i in range(len(student)):
        wanted = F.softmax(teacher[i, allowed[i]].detach() / temperature, dim=0)
        found = F.softmax(student[i, allowed[i]] / temperature, dim=0)
        rows.append(weight * (wanted * (wanted / found).log()).sum())
    return torch.stack(rows)


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 1.0), (0.3, 0.1)])
def test_rows_equal_their_formula(batch, weight, temperature):
    student, teacher, allowed, _ = batch
    ours = ScoreKL(weight, temperature).rows(*batch)
    expected = slow(student, teacher, allowed, weight, temperature)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-14)
    for mine, theirs in zip(
        torch.autograd.grad(ours.sum(), student), torch.autograd.grad(expected.sum(), student), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-14)
    assert ours[2] == 0
    assert ours[[0, 1, 3]].min() > 0


def test_nothing_flows_to_the_teacher_or_to_what_is_not_allowed(batch):
    student, teacher, allowed, _ = batch
    value = ScoreKL().rows(*batch).sum()
    gradient, none = torch.autograd.grad(value, [student, teacher], allow_unused=True)
    assert none is None
    assert gradient.isfinite().all()
    assert gradient[~allowed].abs().max() == 0
    assert gradient.abs().max() > 0


def test_the_same_ranking_costs_nothing_and_shifting_a_row_changes_nothing(batch):
    student, teacher, allowed, facts = batch
    assert ScoreKL().rows(teacher, teacher, allowed, facts).abs().max() == 0
    moved = ScoreKL().rows(student + torch.arange(4.0)[:, None], teacher, allowed, facts)
    torch.testing.assert_close(moved, ScoreKL().rows(*batch), rtol=1e-9, atol=1e-12)


def test_extreme_scores_stay_finite(batch):
    student, teacher, allowed, facts = batch
    wide = (1e4 * student.detach()).float().requires_grad_()
    value = ScoreKL(temperature=0.01).rows(wide, (1e4 * teacher).float(), allowed, facts)
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), wide)[0].isfinite().all()


def test_weight_and_temperature_follow_their_schedules(batch):
    student, teacher, allowed, facts = batch
    loss = ScoreKL(Linear(0.0, 2.0, steps=10), Linear(1.0, 0.5, steps=10))
    value = loss.rows(student, teacher, allowed, facts._replace(step=5))
    torch.testing.assert_close(value, slow(student, teacher, allowed, 1.0, 0.75), rtol=1e-10, atol=1e-14)
    assert loss.rows(*batch).abs().max() == 0
