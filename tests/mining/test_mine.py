"""Mining as a whole: beside a slow version, beside sentence-transformers, with a cross-encoder, as rows."""

import json

import numpy as np
import pytest
from small_runs import flip

from embedtrain.data.read.sources import read_examples
from embedtrain.data.writing import write_rows
from embedtrain.mining.backends import backend
from embedtrain.mining.mine import Miner, mine
from embedtrain.mining.output import mined_rows
from embedtrain.mining.pipeline import check_size, fill, mine_all, stores_of
from embedtrain.mining.problem import problems_of
from embedtrain.mining.rescore import CrossEncoderScores, PairScores
from embedtrain.mining.selection import Sample, Selection
from embedtrain.mining.statistics import readable
from embedtrain.rules import Abs, MarginPos, MinScore, PercPos, TopK
from embedtrain.types import InputError
from embedtrain.vectors.topk import in_memory


def quiet(what, done, total):
    assert 0 < done <= total, what


@pytest.fixture
def rows(example):
    made = [example(f"q{n % 13}", [f"d{n}", f"d{(n * 7) % 40}"], [f"n{n % 5}"]) for n in range(17)]
    return [row._replace(positives=tuple(dict.fromkeys(row.positives))) for row in made]


def vectors_of(problem, teacher, dtype=np.float16):
    queries = teacher.embed([query.text for query in problem.queries], "query").astype(dtype)
    return queries, teacher.embed(problem.documents, "document").astype(dtype)


def slow(rows, row, teacher, *, perc_pos, skip, depth, per_row, reference):
    """Negatives of one row in plain Python, and their scores."""
    (problem,) = problems_of(enumerate(rows))
    queries, documents = vectors_of(problem, teacher)
    query = queries[int(problem.query_of[row])].astype(float)
    score = {
        text: float(query @ vector.astype(float))
        for text, vector in zip(problem.documents, documents, strict=True)
    }
    labelled = {text for other in rows if other.query == rows[row].query for text in other.positives}
    order = [text for text in problem.documents if text not in labelled | {rows[row].query}]
    order = sorted(order, key=lambda text: -score[text])[:depth]
    bound = perc_pos * reference(score[text] for text in labelled)
    return [text for rank, text in enumerate(order) if rank >= skip and score[text] < bound][:per_row]


@pytest.mark.parametrize("reference", [min, max])
def test_mining_is_what_the_rules_say(rows, teacher, tmp_path, reference):
    name = {min: "lowest", max: "highest"}[reference]
    selection = Selection(rules=[TopK(2), PercPos(0.9)], per_row=3, depth=12, reference=name)
    problems = problems_of(enumerate(rows))
    stores = stores_of(problems, teacher, tmp_path, part=7)
    fill(stores, quiet)
    mined, statistics = mine_all(problems, stores, selection, quiet)
    found = list(mined_rows(rows, list(zip(problems, mined, strict=True)), keep_negatives=False))
    settings = {"perc_pos": 0.9, "skip": 2, "depth": 12, "per_row": 3, "reference": reference}
    expected = [slow(rows, row, teacher, **settings) for row in range(len(rows))]
    assert [row["negatives"] for row in found] == expected
    assert any(expected)
    summary = statistics.summary()
    assert summary["rows"] == len(rows)
    counts = np.bincount([len(texts) for texts in expected], minlength=4)
    assert list(summary["rows_with_negatives"].values()) == counts.tolist()
    assert summary["removed"]["top_k"]["count"] == 2 * len(problems[0].queries)
    assert readable(summary)[0].startswith("17 rows, 13 distinct queries")


def test_a_sample_does_not_depend_on_the_order_of_rows(rows, teacher):
    selection = Selection(per_row=2, depth=20, draw=Sample(8))

    def negatives(given):
        (problem,) = problems_of(enumerate(given), corpus=[f"d{n}" for n in range(40)])
        queries, documents = map(in_memory, vectors_of(problem, teacher))
        fetch = backend("exact", documents, problem.pool)
        found = mine(Miner(problem, queries, documents, fetch, selection, seed=3))
        texts = [{problem.documents[n] for n in numbers} for numbers in found.negatives]
        return dict(zip([query.text for query in problem.queries], texts, strict=True))

    assert negatives(rows) == negatives(rows[::-1])


def test_rows_that_are_written_are_read_as_what_they_were(tmp_path, teacher):
    source = tmp_path / "source.jsonl"
    lines = [
        {"query": f"q{n}", "positives": [f"p{n}", f"r{n}"], "task": f"t{n % 2}", "negative": f"own{n}"}
        | ({"instruction": ["", "Find it."][n % 2]} if n > 2 else {})
        for n in range(8)
    ]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    before = read_examples(source)
    for keep in (False, True):
        problems = problems_of(enumerate(before), keep_negatives=keep)
        stores = stores_of(problems, teacher, tmp_path / "vectors")
        fill(stores, quiet)
        mined, _ = mine_all(problems, stores, Selection(per_row=2, depth=4), quiet)
        found = list(zip(problems, mined, strict=True))
        for suffix in ("jsonl", "jsonl.gz", "parquet"):
            out = tmp_path / f"mined.{suffix}"
            write_rows(out, list(mined_rows(before, found, keep_negatives=keep)))
            after = read_examples(out)
            for old, new in zip(before, after, strict=True):
                assert new[:2] == old[:2]
                assert (new.task, new.prompts) == (old.task, old.prompts)
                own = old.negatives if keep else ()
                assert new.negatives[: len(own)] == own
                assert len(new.negatives) == len(own) + 2
                query = teacher.embed([old.query], "query")
                docs = teacher.embed([*new.positives, *new.negatives], "document")
                assert new.teacher == pytest.approx((docs @ query[0]).tolist(), abs=2e-3)
        first = out.with_suffix(".jsonl.gz").read_bytes()
        write_rows(out.with_suffix(".jsonl.gz"), list(mined_rows(before, found, keep_negatives=keep)))
        assert out.with_suffix(".jsonl.gz").read_bytes() == first, "no clock is in it"


def test_too_few_documents(example):
    problems = problems_of(enumerate([example("q", ["a", "b"], ["c"])]))
    with pytest.raises(InputError, match="there are 3 documents to choose from: too few for 4 negatives"):
        check_size(problems, Selection(per_row=4))


class Overlap:
    """Pairs scored by shared letters; counts its calls."""

    identity = "ef" * 20

    def __init__(self):
        self.asked = []

    def score(self, pairs):
        self.asked += pairs
        found = [len(set(query) & set(text)) / len(set(query) | set(text)) for query, text in pairs]
        return np.array(found, dtype=np.float32)


def test_a_cross_encoder_decides_in_the_place_of_the_teacher_and_once(rows, teacher, tmp_path):
    problems = problems_of(enumerate(rows))
    stores = stores_of(problems, teacher, tmp_path)
    fill(stores, quiet)
    model = Overlap()
    for rules in ((), (PercPos(0.95), TopK(1))):
        selection = Selection(rules=rules, per_row=3, depth=10)
        (found,), _ = mine_all(problems, stores, selection, quiet, pairs=PairScores(tmp_path, model))
        problem = problems[0]
        for query, numbers in enumerate(found.negatives):
            texts = [problem.documents[n] for n in numbers if n >= 0]
            pairs = [(problem.queries[query].text, text) for text in texts]
            scores = Overlap().score(pairs)
            assert scores.tolist() == found.scores[query][: len(texts)].tolist()
            assert (np.diff(scores) <= 0).all(), "the best by its scores"
            if rules:
                positives = [problem.documents[n] for n in problem.positives[query]]
                told = Overlap().score([(problem.queries[query].text, text) for text in positives])
                assert (scores < 0.95 * told.min()).all()
    once = len(model.asked)
    assert once == 10 * 13 + sum(map(len, problems[0].positives))
    flip(next(tmp_path.glob(f"{Overlap.identity[:16]}-float32/*.vectors")), -1)
    again, _ = mine_all(problems, stores, selection, quiet, pairs=PairScores(tmp_path, model))
    assert np.array_equal(again[0].scores, found.scores, equal_nan=True)
    assert len(model.asked) == 2 * once, "a damaged part is scored again"


def test_a_cross_encoder_that_is_none(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        CrossEncoderScores(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("rules", "theirs"),
    [
        ([], {}),
        ([PercPos(0.98)], {"relative_margin": 0.02}),
        ([MarginPos(0.02), MinScore(0.9)], {"absolute_margin": 0.02, "min_score": 0.9}),
        ([Abs(0.95)], {"max_score": 0.95}),
    ],
    ids=["naive", "perc_pos", "margin_pos", "abs"],
)
def test_sentence_transformers_mines_the_same(tiny_bert, small_data, rules, theirs):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    examples = read_examples(small_data / "train.jsonl")
    (problem,) = problems_of(enumerate(examples))
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    encoded = [model.encode([q.text for q in problem.queries]), model.encode(list(problem.documents))]
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in encoded]
    documents = in_memory(unit[1].astype(np.float32))
    selection = Selection(rules=rules, per_row=3, depth=20)
    fetch = backend("exact", documents, problem.pool)
    found = mine(Miner(problem, in_memory(unit[0].astype(np.float32)), documents, fetch, selection))
    ours = {
        (query.text, problem.documents[number])
        for query, numbers in zip(problem.queries, found.negatives, strict=True)
        for number in numbers
        if number >= 0
    }
    pairs = Dataset.from_dict(
        {"query": [row.query for row in examples], "positive": [row.positives[0] for row in examples]}
    )
    mined = mine_hard_negatives(pairs, model, num_negatives=3, range_max=20, verbose=False, **theirs)
    assert ours == set(zip(mined["query"], mined["negative"], strict=True))
    assert 5 < len(ours) <= 192
    assert rules == [] or len(ours) < 192
