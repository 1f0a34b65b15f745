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


@pytest.mark.parametrize(
    ("loss", "lacking"),
    [(CoSENT(), "scores"), (Triplet(), "negatives"), (MarginMSE(), "teacher")],
    ids=["scores", "negatives", "teacher"],
)
def test_rows_that_lack_what_a_loss_needs(loss, lacking):
    check(plain(loss))
    told = {"scores": 'loss needs a "score"', "negatives": "loss needs hard negatives"}
    with pytest.raises(InputError, match=told.get(lacking, "loss needs a teacher's scores")):
        check(plain(loss), offers=EVERYTHING - {lacking})


def test_a_rule_without_its_guide():
    rules = Negatives(rules=[MarginPos(by="guide")])
    check(plain(negatives=rules, guide=Guide()))
    with pytest.raises(InputError, match=r"needs a guide and there is none: choose guide=model guide\.path="):
        check(plain(negatives=rules))


def test_gist_without_the_rule_that_makes_it_gist():
    gist, rules = InfoNCE(guided=True), Negatives(rules=[MarginPos(by="guide")])
    check(plain(gist, negatives=rules, guide=Guide()))
    for lacking in (plain(gist), plain(gist, negatives=Negatives(rules=[MarginPos(by="student")]))):
        with pytest.raises(InputError, match=r"loss is guided, and no rule .* choose negatives=gist guide"):
            check(lacking)


def test_a_guide_that_nothing_asks():
    check(plain(distill=EmbeddingDistill(width=8, guide_width=5), guide=Guide()))
    with pytest.raises(InputError, match=r"nothing asks the guide: .* Choose guide=none, or what uses it"):
        check(plain(guide=Guide()))


def test_datasets_that_the_data_does_not_have():
    with pytest.raises(InputError, match="'three', which the data does not have; it has 'one', 'two'"):
        check(plain(negatives=Negatives(datasets={"three": {"scope": "own"}})))
    split = Sum([Term(InfoNCE(), tasks=["one"]), Term(InfoNCE(), tasks=["tow"])])
    with pytest.raises(InputError, match="loss has a loss for the data set 'tow', which the data does not"):
        check(plain(split))


def test_one_loss_for_rows_with_and_without_scores():
    kinds = {"one": True, "two": False}
    check(plain(Sum([Term(CoSENT(), tasks=["one"]), Term(InfoNCE(), tasks=["two"])])), tasks=kinds)
    with pytest.raises(InputError, match="one loss for 'one', whose rows have scores, and 'two', whose rows"):
        check(plain(InfoNCE()), tasks=kinds)


def test_halves_of_an_odd_dim():
    with pytest.raises(InputError, match="needs even dims, the plan has L3_D3"):
        check(plain(AnglE()), Dims([3, 8], **SIZE))


def test_what_a_part_refuses_of_a_plan_it_refuses_in_the_rehearsal():
    pairs = FixedPairs([[1, 2], [2, 2], [3, 8]], **SIZE)
    check(plain(distill=Espresso(compress_dim=2)), pairs)
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


@pytest.mark.parametrize(
    "plan", [Random2d([2, 8], **SIZE), Grid(per_step=1, dims=[4, 8], **SIZE)], ids=["random2d", "grid"]
)
def test_a_queue_of_layers_that_change(plan):
    check(plain(), plan)
    with pytest.raises(InputError, match=r"queue: this plan trains other layers at step \d than at step 0"):
        check(plain(queue=Queue(5)), plan)


def test_a_queue_of_layers_that_change_late():
    early, late = FixedPairs([[1, 8], [3, 8]], **SIZE), FixedPairs([[2, 8], [3, 8]], **SIZE)

    class Curriculum:
        sub_models = late.sub_models

        def __call__(self, step):
            return (late if step >= 150 else early)(step)

    with pytest.raises(InputError, match="trains other layers at step 150 than at step 0"):
        check(plain(queue=Queue(5)), Curriculum())


def test_a_queue_that_would_differ_by_rank():
    check(plain(queue=Queue(5), gather="none"))
    check(plain(queue=Queue(5), gather="values"), ranks=2)
    with pytest.raises(InputError, match="with gather=none each rank would have a queue of its own"):
        check(plain(queue=Queue(5), gather="none"), ranks=2)
