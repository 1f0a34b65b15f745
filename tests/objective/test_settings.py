"""Settings of losses, distillations, rules and schedules that are out of range or make no sense."""

import pytest

from embedtrain.objective.distill.espresso import Espresso
from embedtrain.objective.distill.kl import LayerKL, PrefixKL
from embedtrain.objective.distill.scores import ScoreKL
from embedtrain.objective.losses.angle import AnglE, Angle, AnglETriples
from embedtrain.objective.losses.contrastive import InfoNCE
from embedtrain.objective.losses.regularizers import GOR, OPL
from embedtrain.objective.losses.scored import CoSENT
from embedtrain.objective.losses.triples import MarginMSE, TeacherKL, Triplet
from embedtrain.objective.schedule import Cosine, Linear, Stairs
from embedtrain.objective.similarity.negatives import Negatives
from embedtrain.rules import Abs, MarginPos, PercPos, TopK
from embedtrain.types import InputError

ALL = ("query_docs", "query_queries", "doc_queries", "doc_docs")
NAN = float("nan")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AnglE(0, 0, 0), r"cosine_weight, ibn_weight and angle_weight are 0, nothing trains"),
        (lambda: AnglETriples(0, 0, 0, 0), r"hard_weight and angle_weight are 0, nothing trains"),
        (lambda: AnglE(ibn_weight=-1), r"ibn_weight must be 0 or more, got -1"),
        (lambda: AnglETriples(temperature=0), r"temperature must be above 0 \(0.05 is usual\), got 0"),
        (lambda: Angle(labels="own"), r"labels must be one of \['scores', 'negatives'\], got 'own'"),
        (lambda: OPL("own"), r"labels must be one of \['scores', 'negatives'\], got 'own'"),
        (lambda: GOR(-1), r"mean_weight must be 0 or more, got -1"),
        (lambda: GOR(0, 0), r"mean_weight and second_moment_weight are 0, nothing trains: raise one"),
        (lambda: Triplet(0), r"margin must be above 0 \(0\.5 is usual\), got 0"),
        (lambda: Triplet(distance="dot"), r"distance must be one of \['euclidean', 'cosine'\], got 'dot'"),
        (lambda: MarginMSE("l2"), r"similarity must be one of \['cosine', 'dot'\], got 'l2'"),
        (lambda: TeacherKL(-1), r"temperature must be above 0 \(1 is usual\), got -1"),
        (lambda: TeacherKL(teacher_temperature=0), r"teacher_temperature must be above 0"),
        (lambda: TeacherKL(teacher="rows"), r"teacher must be one of \['labels', 'guide'\], got 'rows'"),
        (lambda: PrefixKL(weight=-1), "weight must be 0 or more, got -1"),
        (lambda: PrefixKL(factor=float("nan")), "factor must be 0 or more, got nan"),
        (lambda: LayerKL(power=3), "power must be 0, 1 or 2, got 3"),
        (lambda: LayerKL(weight=-1), "weight must be 0 or more, got -1"),
        (lambda: LayerKL(temperature=0), r"temperature must be above 0 \(0\.3 is usual\), got 0"),
        (lambda: MarginPos(by="teacher"), 'by must be "student" or "guide", got \'teacher\''),
        (lambda: PercPos(0.0), "perc_pos must be above 0 and below 2, got 0.0"),
        (lambda: PercPos(95.0), "perc_pos must be above 0 and below 2, got 95"),
        (lambda: MarginPos(float("nan")), "margin must be a finite number or a schedule, got nan"),
        (lambda: MarginPos(blocks=["docs"]), r"blocks must be some of query_docs, .*, got \['docs'\]"),
        (lambda: MarginPos(blocks=[]), r"blocks must be some of .*, got \[\]"),
        (lambda: TopK(0), "k must be a whole number of at least 1, got 0"),
        (lambda: Abs("0.7"), "most must be a finite number or a schedule, got '0.7'"),
        (lambda: Negatives(rules=[MarginPos(), MarginPos(0.1)]), "two rules are called margin_pos"),
        (lambda: Negatives(rules=["gist"]), "rules must be a list of rules, got 'gist'"),
        (lambda: Negatives(scope="mine"), 'scope must be "all" or "own"'),
        (lambda: Negatives(datasets={"nli": {"scope": "no"}}), r"datasets\.nli\.scope must be"),
        (lambda: Negatives(datasets={"nli": {"scop": "own"}}), r"datasets\.nli takes scope and in_batch"),
        (lambda: Linear(0.0, float("nan"), 10), "end must be a finite number, got nan"),
        (lambda: Cosine(0.0, 1.0, 0), "steps must be a whole number of at least 1, got 0"),
        (lambda: Stairs({5: 1.0}), "must have an entry for step 0"),
        (lambda: Linear("a", 1.0, 3), "start must be a finite number, got 'a'"),
        (lambda: Espresso(compress_dim=0), r"compress_dim must be at least 1, got 0"),
        (lambda: Espresso(temperature=0), r"temperature must be above 0 \(1 is usual\), got 0"),
        (lambda: Espresso(mse_weight=-1), r"mse_weight must be 0 or more, got -1"),
        (lambda: Espresso(kl_weight=-1), r"kl_weight must be 0 or more, got -1"),
        (lambda: ScoreKL(weight=-1.0), r"weight must be 0 or more, got -1\.0"),
        (lambda: ScoreKL(temperature=0.0), r"temperature must be above 0 \(0\.05 is usual\), got 0\.0"),
        (lambda: ScoreKL(similarity="euclid"),
         r"similarity must be one of \['cosine', 'dot'\], got 'euclid'"),
        (lambda: InfoNCE(similarity="euclid"),
         r"similarity must be one of \['cosine', 'dot'\], got 'euclid'"),
        (lambda: InfoNCE(blocks=("doc_docs",)), "blocks must name query_docs and nothing twice"),
        (lambda: InfoNCE(blocks=("query_docs", "query_docs")),
         "blocks must name query_docs and nothing twice"),
        (lambda: InfoNCE(blocks=("query_docs", "docs")),
         r"blocks must be one of \['query_docs', .* got 'docs'"),
        (lambda: InfoNCE(blocks="query_docs"),
         r"blocks must be a list, got 'query_docs': write \[query_docs\]"),
        (lambda: InfoNCE(partition="per_block"),
         r"partition must be one of \['joint', 'separate'\], got 'per_block'"),
        (lambda: InfoNCE(blocks=ALL, partition="separate"),
         "query_queries and doc_docs has none: leave it out"),
        (lambda: InfoNCE(own_pair="twice"), "own_pair=twice has no effect without"),
        (lambda: InfoNCE(doc_docs="positives"),
         "doc_docs=positives has no effect without doc_docs in blocks"),
        (lambda: InfoNCE(hardness="soft", hardness_strength=1.0),
         r"hardness must be one of \['in_batch', 'hard', 'all'\]"),
        (lambda: InfoNCE(hardness="all"),
         r"hardness=all and hardness_strength=0\.0 do nothing: set both or neither"),
        (lambda: InfoNCE(hardness_strength=5.0), "hardness=None and hardness_strength=5.0 do nothing"),
        (lambda: InfoNCE(hardness="all", hardness_strength=-1.0),
         r"hardness_strength must be 0 or more, got -1\.0"),
        *((lambda loss=loss, value=value: loss(value), r"temperature must be above 0 \(0\.05 is usual\), got")
          for loss in (InfoNCE, CoSENT) for value in (0, -0.05, NAN, float("inf"))),
        (lambda: CoSENT(labels="rows"), r"labels must be one of \['scores', 'negatives'\], got 'rows'"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(build, message):
    with pytest.raises(InputError, match=message):
        build()
