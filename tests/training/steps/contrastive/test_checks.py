"""What cannot be combined is refused when a run is built, and the message says what would do."""

import pytest
import torch

from embedtrain.objective.distill.embedding import EmbeddingDistill
from embedtrain.objective.distill.espresso import Espresso
from embedtrain.objective.losses.angle import AnglE
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.losses.terms import Sum, Term
from embedtrain.objective.losses.triples import MarginMSE, Triplet
from embedtrain.objective.matryoshka import Objective
from embedtrain.objective.plan import Dims, FixedPairs, Full, Grid, Random2d
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.rules import MarginPos
from embedtrain.training.steps.contrastive.batch_loss import BatchLoss
from embedtrain.training.steps.contrastive.checks import check_run
from embedtrain.training.steps.contrastive.queue import Queue
from embedtrain.types import InputError

SIZE = {"num_layers": 3, "width": 8}
EVERYTHING = {"scores", "teacher", "negatives"}


class Guide:
    """Never asked: a rehearsal draws its vectors."""

    width = 5


def check(loss, plan=None, offers=EVERYTHING, tasks=(("one", False), ("two", False)), ranks=1):
    kinds = dict(tasks)
    check_run(loss, plan or Full(**SIZE), width=8, offers=offers, tasks=kinds, ranks=ranks, steps=200)


def plain(loss=None, distill=None, **settings):
    return BatchLoss(Objective(loss or InfoNCE(), distill), **settings)


GUIDED = Negatives(rules=[MarginPos(by="guide")])
TASKS = {"one": True, "two": False}
SPLIT = Sum([Term(CoSENT(), tasks=["one"]), Term(InfoNCE(), tasks=["two"])])
GIST = InfoNCE(guided=True)
PAIRS = FixedPairs([[1, 2], [2, 2], [3, 8]], **SIZE)


def without(need):
    return {"offers": EVERYTHING - {need}}


REFUSED = {  # what will do, what will not, its further settings, the message
    "scores": (plain(CoSENT()), plain(CoSENT()), without("scores"), 'loss needs a "score"'),
    "negatives": (plain(Triplet()), plain(Triplet()), without("negatives"), "loss needs hard negatives"),
    "teacher": (plain(MarginMSE()), plain(MarginMSE()), without("teacher"), "loss needs a teacher's scores"),
    "a rule without its guide": (plain(negatives=GUIDED, guide=Guide()), plain(negatives=GUIDED), {},
        r"needs a guide and there is none: choose guide=model guide\.path="),
    "gist without rules": (plain(GIST, negatives=GUIDED, guide=Guide()), plain(GIST), {},
        r"loss is guided, and no rule .* choose negatives=gist guide"),
    "gist without its rule": (plain(GIST, negatives=GUIDED, guide=Guide()),
        plain(GIST, negatives=Negatives(rules=[MarginPos(by="student")])), {},
        r"loss is guided, and no rule .* choose negatives=gist guide"),
    "a guide that nothing asks": (plain(distill=EmbeddingDistill(width=8, guide_width=5), guide=Guide()),
        plain(guide=Guide()), {}, r"nothing asks the guide: .* Choose guide=none, or what uses it"),
    "sharing of a dataset that is not there": (plain(negatives=Negatives(datasets={"one": {"scope": "own"}})),
        plain(negatives=Negatives(datasets={"three": {"scope": "own"}})), {},
        "'three', which the data does not have; it has 'one', 'two'"),
    "a loss of a dataset that is not there": (plain(Sum([Term(InfoNCE(), tasks=["one"])])),
        plain(Sum([Term(InfoNCE(), tasks=["one"]), Term(InfoNCE(), tasks=["tow"])])), {},
        "loss has a loss for the data set 'tow', which the data does not"),
    "one loss with and without scores": (plain(), plain(), {"tasks": TASKS},
        "one loss for 'one', whose rows have scores, and 'two', whose rows"),
    "scores that no loss reads": (plain(CoSENT()), plain(), {"tasks": {"one": True}}, "no loss reads them"),
    "halves of an odd dim": (plain(AnglE()), plain(AnglE()), {"plan": Dims([3, 8], **SIZE)},
        "needs even dims, the plan has L3_D3"),
    "random2d under a queue": (plain(), plain(queue=Queue(5)), {"plan": Random2d([2, 8], **SIZE)},
        r"queue: this plan trains other layers at step \d than at step 0"),
    "grid under a queue": (plain(), plain(queue=Queue(5)), {"plan": Grid(per_step=1, dims=[4, 8], **SIZE)},
        r"queue: this plan trains other layers at step \d than at step 0"),
    "a queue of each rank": (plain(queue=Queue(5), gather="none"), plain(queue=Queue(5), gather="none"),
        {"ranks": 2}, "with gather=none each rank would have a queue of its own"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_combined(name):
    fine, wrong, more, message = REFUSED[name]
    check(fine)
    with pytest.raises(InputError, match=message):
        check(wrong, **more)


def test_what_can_be_combined():
    check(plain(SPLIT), tasks=TASKS)
    check(plain(distill=Espresso(compress_dim=2)), PAIRS)
    check(plain(queue=Queue(5), gather="values"), ranks=2)
    for plan in (Random2d([2, 8], **SIZE), Grid(per_step=1, dims=[4, 8], **SIZE)):
        check(plain(), plan)


def test_what_a_part_refuses_of_a_plan_it_refuses_in_the_rehearsal():
    with pytest.raises(InputError, match="choose plan=espresso"):
        check(plain(distill=Espresso(compress_dim=2)))


def test_a_rehearsal_leaves_the_objective_and_the_generator_as_they_were():
    loss = plain(InfoNCE(learn_temperature=True))
    state, before = (
        torch.get_rng_state(),
        {name: value.clone() for name, value in loss.objective.state_dict().items()},
    )
    check(loss)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in loss.objective.state_dict().items())


def test_a_queue_of_layers_that_change_late():
    early, late = FixedPairs([[1, 8], [3, 8]], **SIZE), FixedPairs([[2, 8], [3, 8]], **SIZE)

    class Curriculum:
        sub_models = late.sub_models

        def __call__(self, step):
            return (late if step >= 150 else early)(step)

    with pytest.raises(InputError, match="trains other layers at step 150 than at step 0"):
        check(plain(queue=Queue(5)), Curriculum())
