import pytest
import torch
import torch.nn.functional as F
from fixed_pairing import fixed

from embedtrain.objective.losses.pairs import own_negatives
from embedtrain.objective.losses.triples import MarginMSE, TeacherKL, Triplet, grouped_log_softmax
from embedtrain.objective.schedule import Linear
from embedtrain.objective.similarity.decided import decided
from embedtrain.types import Allowed, Blocks, Guide, InputError

OWNER = torch.tensor([0, 2, 1, 0, 3, 0, 2, -1])  # two hard negatives of 0, one of 2, a queued document
TARGET = torch.tensor([3, 2, 1, 4])
TEACHER = torch.tensor([2.0, 9.0, 4.0, 8.0, torch.nan, 5.5, 1.0, torch.nan])
NAN = float("nan")


def batch(seed=0, width=5, **facts):
    generator = torch.Generator().manual_seed(seed)
    query, docs = (
        torch.randn(count, width, generator=generator, dtype=torch.float64, requires_grad=True)
        for count in (4, 8)
    )
    guide = [F.normalize(torch.randn(count, 3, generator=generator), dim=-1) for count in (4, 8)]
    given = {"owner": OWNER, "teacher": TEACHER, "guide": Guide(*guide), **facts}
    return query, docs, fixed(TARGET, torch.ones(4, 8, dtype=torch.bool), **given)


def own(query):
    """Positive and hard negatives of a query."""
    return int(TARGET[query]), [c for c in range(8) if OWNER[c] == query and c != TARGET[query]]


def slow_triplet(query, docs, margin, distance):
    losses = []
    for row in range(4):
        positive, negatives = own(row)
        losses += [
            (distance(query[row], docs[positive]) - distance(query[row], docs[c]) + margin).clamp(min=0)
            for c in negatives
        ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("name", "margin", "distance"),
    [
        ("cosine", 0.5, lambda x, y: 1 - F.cosine_similarity(x, y, dim=0)),
        ("euclidean", 5.0, lambda x, y: (x - y).square().sum().sqrt()),
    ],
)
def test_triplet_equals_its_formula(name, margin, distance):
    query, docs, pairing = batch()
    value = Triplet(margin, name)(query, docs, pairing)
    torch.testing.assert_close(value, slow_triplet(query, docs, margin, distance), rtol=1e-12, atol=0)


def test_equal_texts_have_a_finite_gradient():
    query, docs, pairing = batch()
    same = docs.detach().clone()
    same[3] = query[0].detach()
    same.requires_grad_()
    for name in ("euclidean", "cosine"):
        for gradient in torch.autograd.grad(Triplet(5.0, name)(query, same, pairing), [query, same]):
            assert torch.isfinite(gradient).all()


def test_triplet_leaves_out_what_the_rules_took_out():
    query, docs, pairing = batch()
    allowed = torch.ones(4, 8, dtype=torch.bool)
    allowed[0, 5] = False
    strict = fixed(TARGET, allowed, owner=OWNER)
    gone = fixed(
        TARGET, torch.ones(4, 8, dtype=torch.bool), owner=torch.where(torch.arange(8) == 5, -1, OWNER)
    )
    values = [Triplet(5.0)(query, docs, each) for each in (pairing, strict, gone)]
    assert values[1] == values[2] != values[0]
    nothing = fixed(TARGET, torch.nn.functional.one_hot(TARGET, 8).bool(), owner=OWNER)
    zero = Triplet(5.0)(query, docs, nothing)
    assert zero == 0
    assert not torch.autograd.grad(zero, query)[0].any()


def test_margin_mse_equals_its_formula():
    query, docs, pairing = batch()
    dots = query @ docs.T
    goals = {(0, 0): 8 - 2.0, (0, 5): 8 - 5.5, (2, 6): 9 - 1.0}
    slow = sum((dots[row, TARGET[row]] - dots[row, c] - goal) ** 2 for (row, c), goal in goals.items()) / len(
        goals
    )
    torch.testing.assert_close(MarginMSE()(query, docs, pairing), slow, rtol=1e-12, atol=0)
    unit = MarginMSE()(F.normalize(query, dim=-1), F.normalize(docs, dim=-1), pairing)
    torch.testing.assert_close(MarginMSE("cosine")(query, docs, pairing), unit, rtol=1e-12, atol=0)


def test_margins_beyond_2_are_reached_because_raw_norms_arrive():
    query, docs, pairing = batch()
    far = pairing._replace(teacher=20 * TEACHER)
    leaves = [item.detach().clone().requires_grad_() for item in (query, docs)]
    optimiser = torch.optim.Adam(leaves, lr=0.1)
    for _ in range(400):
        optimiser.zero_grad()
        MarginMSE()(*leaves, far).backward()
        optimiser.step()
    assert MarginMSE()(*leaves, far) < 1e-3  # margins of 50 to 160
    assert MarginMSE("cosine")(*leaves, far) > 1000


def slow_teacher_kl(scores, teacher, temperature, teacher_temperature):
    """Rows of (query, documents) that the teacher scored, each a softmax of its own."""
    losses = []
    for row in range(4):
        positive, negatives = own(row)
        known = [c for c in (positive, *negatives) if not teacher[row, c].isnan()]
        if len(known) < 2:
            continue
        p = torch.softmax(teacher[row, known].double() / teacher_temperature, 0)
        q = torch.softmax(scores[row, known] / temperature, 0)
        losses.append((p * (p / q).log()).sum())
    return temperature**2 * sum(losses) / len(losses)


@pytest.mark.parametrize(("temperature", "teacher_temperature"), [(1.0, None), (0.3, None), (2.0, 4.0)])
def test_teacher_kl_equals_its_formula(temperature, teacher_temperature):
    query, docs, pairing = batch()
    slow = slow_teacher_kl(
        query @ docs.T, TEACHER.repeat(4, 1), temperature, teacher_temperature or temperature
    )
    value = TeacherKL(temperature, teacher_temperature)(query, docs, pairing)
    torch.testing.assert_close(value, slow, rtol=1e-12, atol=0)


def test_teacher_kl_of_a_guide_equals_its_formula():
    query, docs, pairing = batch(teacher=None)
    cosine = F.normalize(query, dim=-1) @ F.normalize(docs, dim=-1).T
    guide = pairing.guide.query @ pairing.guide.docs.T
    slow = slow_teacher_kl(cosine, guide, 0.05, 0.1)
    value = TeacherKL(0.05, 0.1, "cosine", teacher="guide")(query, docs, pairing)
    torch.testing.assert_close(value, slow, rtol=1e-5, atol=0)  # the guide's cosines are float32


def test_a_student_equal_to_its_teacher_learns_nothing():
    query, docs, pairing = batch()
    scores = (query @ docs.T).detach()
    alike = pairing._replace(teacher=scores[OWNER.clamp(min=0), torch.arange(8)] + 7)
    for loss in (TeacherKL(0.7), MarginMSE()):
        value = loss(query, docs, alike)
        assert abs(value) < 1e-12
        assert torch.autograd.grad(value, query)[0].abs().max() < 1e-10


def test_grouped_log_softmax_holds_at_large_values():
    values = torch.tensor([1000.0, 0.0, 1001.0, -5.0, 3.0])
    group = torch.tensor([2, 0, 2, 0, 5])
    expected = torch.cat(
        [torch.log_softmax(values[[0, 2]], 0), torch.log_softmax(values[[1, 3]], 0), torch.zeros(1)]
    )[[0, 2, 1, 3, 4]]
    torch.testing.assert_close(grouped_log_softmax(values, group, 6), expected)


LOSSES = {
    "triplet": Triplet(5.0),
    "triplet-euclidean": Triplet(5.0, "euclidean"),
    "margin": MarginMSE(),
    "kl": TeacherKL(0.7),
    "kl-guide": TeacherKL(0.3, 0.05, "cosine", "guide"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name):
    query, docs, pairing = batch(1)
    assert torch.autograd.gradcheck(lambda q, d: LOSSES[name](q, d, pairing), (query, docs), atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_order_of_documents_and_queries_is_irrelevant(name):
    query, docs, pairing = batch(2)
    value = LOSSES[name](query, docs, pairing)
    generator = torch.Generator().manual_seed(0)
    order, asked = torch.randperm(8, generator=generator), torch.randperm(4, generator=generator)
    owner = OWNER[order]
    moved = fixed(
        order.argsort()[TARGET[asked]], torch.ones(4, 8, dtype=torch.bool),
        owner=torch.where(owner < 0, owner, asked.argsort()[owner.clamp(min=0)]), teacher=TEACHER[order],
        guide=Guide(pairing.guide.query[asked], pairing.guide.docs[order]),
    )  # fmt: skip
    torch.testing.assert_close(LOSSES[name](query[asked], docs[order], moved), value, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_documents_of_others_and_of_earlier_steps_take_no_part(name):
    query, docs, pairing = batch(3)
    gradient = torch.autograd.grad(LOSSES[name](query, docs, pairing), docs)[0]
    assert not gradient[7].any()
    assert gradient[3].any()


@pytest.mark.parametrize(
    ("loss", "by_norm", "kept"),
    [
        (Triplet(5.0), 3.0, True),
        (Triplet(5.0, "euclidean"), 3.0, False),
        (MarginMSE(), 3.0, False),
        (MarginMSE("cosine"), 3.0, True),
        (TeacherKL(), 3.0, False),
        (TeacherKL(similarity="cosine"), 3.0, True),
    ],
)
def test_norms_reach_dot_products_and_distances_alone(loss, by_norm, kept):
    query, docs, pairing = batch(4)
    same = torch.isclose(
        loss(query, docs, pairing), loss(by_norm * query, by_norm * docs, pairing), rtol=1e-9
    )
    assert bool(same) is kept


def test_a_teachers_temperature_follows_the_students_schedule():
    query, docs, pairing = batch(5)
    falling = TeacherKL(Linear(2.0, 1.0, steps=10))
    value = falling(query, docs, pairing._replace(step=5))
    assert value == TeacherKL(1.5)(query, docs, pairing)
    margin = Triplet(Linear(0.0, 1.0, steps=10))
    assert margin(query, docs, pairing._replace(step=5)) == Triplet(0.5)(query, docs, pairing)


def test_a_rule_that_asks_the_model_gets_its_cosines_in_chunks(monkeypatch):
    query, docs, pairing = batch(6)
    seen = {}

    class Asking:
        needs_student = True

        def allowed(self, rows, names, student):
            seen.update(zip(rows.tolist(), student.query_docs, strict=True))
            return Allowed(Blocks(torch.ones(len(rows), 8, dtype=torch.bool)), rows, {})

    monkeypatch.setattr("embedtrain.objective.similarity.row_terms.BUDGET", 8)
    monkeypatch.setattr("embedtrain.objective.similarity.row_terms.FEWEST_ROWS", 1)  # one query at a time
    owned = own_negatives("x", decided(pairing._replace(candidates=Asking()), query, docs))
    assert list(zip(owned.query.tolist(), owned.doc.tolist(), strict=True)) == [(0, 0), (0, 5), (2, 6)]
    assert sorted(seen) == [0, 2]
    cosine = F.cosine_similarity(query[2], docs, dim=-1)
    torch.testing.assert_close(seen[2], cosine.detach(), rtol=1e-12, atol=0)
    assert not seen[2].requires_grad


@pytest.mark.parametrize(
    ("loss", "facts", "message"),
    [
        (Triplet(), {"owner": None}, r'Triplet needs hard negatives .* add "negatives" to the'),
        (MarginMSE(), {"teacher": None}, r'MarginMSE needs a teacher\'s scores .* add "teacher_scores"'),
        (MarginMSE(), {"teacher": torch.full((8,), NAN)}, r"MarginMSE needs a teacher's scores"),
        (TeacherKL(), {"teacher": None}, r"TeacherKL needs a teacher's scores"),
        (TeacherKL(), {"owner": None}, r"TeacherKL needs a teacher's scores of positive and hard negatives"),
        (TeacherKL(teacher="guide"), {"guide": None}, r'a guide model: name one .* set teacher="labels"'),
    ],
)  # fmt: skip
def test_what_is_missing_names_the_cure(loss, facts, message):
    query, docs, pairing = batch(**facts)
    with pytest.raises(InputError, match=message):
        loss(query, docs, pairing)


def test_needs_are_announced():
    assert Triplet().needs == {"negatives"}
    assert MarginMSE().needs == {"negatives", "teacher"}
    assert TeacherKL().needs == {"negatives", "teacher"}
    assert TeacherKL(teacher="guide").needs == {"negatives", "guide"}
